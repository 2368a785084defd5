"""A bundle is refused when anything about it changed, and runs nothing it carries."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest

from margincast.core.digest import digest_of
from margincast.core.errors import BundleError
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Forecaster, Panel, TailForecast
from margincast.serving.bundle import installed_loaders, read_bundle, write_bundle
from margincast.serving.manifest import MANIFEST_NAME, BundleMetadata, bundle_digest, verify_bundle

METADATA = BundleMetadata(
    job="tiny",
    horizons_minutes=(480,),
    sides=("long", "short"),
    levels=(0.99, 0.995),
    feature_columns=("volatility_1d",),
    spec_digest="1" * 64,
    feature_set_hash="2" * 64,
    training_data_digest="3" * 64,
    trained_until="2024-06-01T00:00:00",
)
SPECS = {"training": {"name": "tiny", "levels": [0.99, 0.995]}, "features": {"windows": ["8h"]}}
FILES = [
    "model/480m/factors.json",
    "model/horizons.json",
    "specs/features.json",
    "specs/training.json",
    MANIFEST_NAME,
]


class VolatilityMultiple:
    """Forecast = factor of the level x yesterday's volatility, per side."""

    name = "volatility_multiple"

    def __init__(self, factors: dict[str, list[float]], levels: list[float]) -> None:
        self.factors = factors
        self.levels = levels

    def fit(self, panel: Panel) -> Self:
        volatility = panel.frame["volatility_1d"].to_numpy()
        for side, outcome in panel.outcomes.items():
            self.factors[side] = [
                float(np.quantile(outcome / volatility, level)) for level in self.levels
            ]
        return self

    def predict(self, panel: Panel) -> TailForecast:
        frame = panel.frame
        factors = np.array(list(self.factors.values()))
        volatility = frame["volatility_1d"].to_numpy()
        return TailForecast(
            sides=tuple(self.factors),
            levels=tuple(self.levels),
            quantiles=volatility[:, None, None] * factors[None, :, :],
        )

    def parameters(self) -> dict[str, Any]:
        return {"factors": self.factors}

    def save(self, directory: Path) -> None:
        state = {"factors": self.factors, "levels": self.levels}
        (directory / "factors.json").write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        return cls(**json.loads((directory / "factors.json").read_text(encoding="utf-8")))


class SavesBinary(VolatilityMultiple):
    def save(self, directory: Path) -> None:
        (directory / "model.pkl").write_bytes(b"\x80\x04\x95")


class CannotSave(VolatilityMultiple):
    def save(self, directory: Path) -> None:
        super().save(directory)
        raise OSError("disk full")


LOADERS = {"volatility_multiple": VolatilityMultiple}


def of_one_horizon(model: Forecaster) -> HorizonForecaster:
    return HorizonForecaster(model.name, {480: model}, monotone=True)


def fitted() -> HorizonForecaster:
    generator = np.random.default_rng(5)
    volatility = generator.uniform(0.01, 0.1, 500)
    panel = Panel(
        frame=pd.DataFrame({"symbol": "SIM-BTC", "volatility_1d": volatility}),
        units={"volatility_1d": "fraction"},
        outcomes={
            "long": volatility * np.abs(generator.standard_t(4, 500)),
            "short": volatility * np.abs(generator.standard_t(4, 500)),
        },
        log_range=volatility,
        label_end=np.full(500, np.datetime64("2024-01-01", "us")),
    )
    return of_one_horizon(VolatilityMultiple({}, [0.99, 0.995])).fit({480: panel})


@pytest.fixture
def bundle(tmp_path):
    directory = tmp_path / "bundle"
    write_bundle(fitted(), directory, loaders=LOADERS, metadata=METADATA, specs=SPECS)
    return directory


def reseal(directory: Path, **changes: Any) -> None:
    """Rewrite a manifest so that its own digest is right: a forger, not an accident."""
    raw = json.loads((directory / MANIFEST_NAME).read_text())
    body = {key: value for key, value in raw.items() if key != "digest"} | changes
    text = json.dumps({**body, "digest": digest_of(body)}, sort_keys=True, indent=1) + "\n"
    (directory / MANIFEST_NAME).write_text(text)


def test_what_is_read_forecasts_bit_identically_to_what_was_written(bundle):
    frame = pd.DataFrame(
        {"symbol": ["A", "B"], "ts": pd.Timestamp(0, tz="UTC"), "volatility_1d": [0.031, 0.07]}
    )
    panels = {480: Panel.of_decisions(frame, {"volatility_1d": "fraction"}, ("long", "short"))}
    read = read_bundle(bundle, LOADERS)
    assert np.array_equal(
        read.forecaster.predict(panels)[480].quantiles, fitted().predict(panels)[480].quantiles
    )
    assert read.specs == SPECS
    assert read.manifest.metadata == METADATA
    assert set(read.manifest.files) == set(FILES) - {MANIFEST_NAME}
    assert {"margincast", "lightgbm", "numpy"} <= set(read.manifest.libraries)


def test_same_model_and_specs_give_the_same_bytes(bundle, tmp_path):
    again = tmp_path / "elsewhere" / "again"
    write_bundle(
        fitted(), again, loaders=LOADERS, metadata=METADATA, specs=dict(reversed(SPECS.items()))
    )
    for path in FILES:
        assert (again / path).read_bytes() == (bundle / path).read_bytes(), path
    assert bundle_digest(again) == bundle_digest(bundle)


@pytest.mark.parametrize("path", FILES)
def test_any_changed_byte_is_refused_and_its_file_named(bundle, path):
    original = (bundle / path).read_bytes()
    for position in range(0, len(original), max(1, len(original) // 60)):
        changed = bytearray(original)
        changed[position] ^= 0x01
        (bundle / path).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=path):
            read_bundle(bundle, LOADERS)
    (bundle / path).write_bytes(original)
    read_bundle(bundle, LOADERS)


@pytest.mark.parametrize("path", FILES)
def test_an_appended_space_is_refused(bundle, path):
    (bundle / path).write_bytes((bundle / path).read_bytes() + b" ")
    with pytest.raises(BundleError, match=path):
        verify_bundle(bundle)


@pytest.mark.parametrize("path", FILES)
def test_a_missing_file_is_named(bundle, path):
    (bundle / path).unlink()
    with pytest.raises(BundleError, match=path):
        verify_bundle(bundle)


@pytest.mark.parametrize("path", ["extra.txt", "model/extra.py", "specs/other.json"])
def test_a_file_that_is_not_in_the_manifest_is_named(bundle, path):
    (bundle / path).write_text("{}")
    with pytest.raises(BundleError, match=rf"{path} is not in the manifest"):
        verify_bundle(bundle)


def test_a_link_is_refused_even_to_the_right_bytes(bundle, tmp_path):
    outside = tmp_path / "factors.json"
    shutil.move(bundle / "model" / "480m" / "factors.json", outside)
    (bundle / "model" / "480m" / "factors.json").symlink_to(outside)
    with pytest.raises(BundleError, match=r"model/480m/factors\.json is a link"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    "path", ["../secret.json", "/etc/passwd", "model/../../x", "model\\x", "model//x", "loose.json"]
)
def test_a_forged_manifest_cannot_name_files_outside(bundle, path):
    files = json.loads((bundle / MANIFEST_NAME).read_text())["files"]
    reseal(bundle, files={**files, path: "0" * 64})
    with pytest.raises(BundleError, match="not trusted"):
        verify_bundle(bundle)


@pytest.mark.parametrize("changes", [{"format": "other"}, {"format_version": 1}])
def test_an_unknown_format_is_refused(bundle, changes):
    reseal(bundle, **changes)
    with pytest.raises(BundleError, match="this version of margincast reads"):
        verify_bundle(bundle)


@pytest.mark.parametrize("changes", [{"metadata": {}}, {"files": 3}, {"files": {"model/a": 1}}])
def test_a_manifest_of_another_shape_is_refused(bundle, changes):
    reseal(bundle, **changes)
    with pytest.raises(BundleError, match="is not a manifest"):
        verify_bundle(bundle)


def test_a_forged_bundle_is_caught_by_the_digest_the_registry_knows(bundle):
    known = bundle_digest(bundle)
    verify_bundle(bundle, known)
    reseal(bundle, kind="another")
    with pytest.raises(BundleError, match="another model"):
        verify_bundle(bundle, known)


def test_an_unknown_kind_is_not_loaded(bundle):
    with pytest.raises(BundleError, match="kinds that can be loaded: har"):
        read_bundle(bundle, {"har": VolatilityMultiple})


@pytest.mark.parametrize(
    "model_class",
    [
        "os:system",
        "margincast.core.errors:BundleError",
        "margincast.models.protocol:np.random",
        "margincast.models.protocol:Panel",
        "margincast.models.absent:Model",
        "margincast.models.protocol:Absent",
    ],
)
def test_only_model_classes_of_the_package_are_looked_up(bundle, model_class):
    reseal(bundle, model_class=model_class)
    with pytest.raises(BundleError):
        installed_loaders(bundle)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        verify_bundle(tmp_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        verify_bundle(tmp_path / "absent")


@pytest.mark.parametrize(
    ("model", "loaders", "specs", "error"),
    [
        (VolatilityMultiple, {}, SPECS, "cannot be bundled"),
        (SavesBinary, {"binary": SavesBinary}, SPECS, "not text"),
        (VolatilityMultiple, LOADERS, {"training": {"x": float("nan")}}, "as JSON"),
        (VolatilityMultiple, LOADERS, {"../training": {}}, "spec name"),
        (CannotSave, {"cannot_save": CannotSave}, SPECS, "disk full"),
    ],
)
def test_a_failed_write_leaves_nothing_behind(tmp_path, model, loaders, specs, error):
    forecaster = of_one_horizon(model({"long": [1.0, 2.0], "short": [1.0, 2.0]}, [0.99, 0.995]))
    with pytest.raises((BundleError, OSError), match=error):
        write_bundle(
            forecaster, tmp_path / "bundle", loaders=loaders, metadata=METADATA, specs=specs
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(bundle):
    before = bundle_digest(bundle)
    with pytest.raises(BundleError, match="never overwritten"):
        write_bundle(fitted(), bundle, loaders=LOADERS, metadata=METADATA, specs={})
    assert bundle_digest(bundle) == before


def test_what_the_metadata_says_of_horizons_is_what_the_model_has(tmp_path):
    several = HorizonForecaster(
        "volatility_multiple",
        {60: VolatilityMultiple({}, []), 480: SavesBinary({}, [])},
        monotone=True,
    )
    metadata = replace(METADATA, horizons_minutes=(60,))
    with pytest.raises(BundleError, match=r"horizons of \[60\] minutes, the model has \[480\]"):
        write_bundle(fitted(), tmp_path / "bundle", loaders=LOADERS, metadata=metadata, specs={})
    with pytest.raises(BundleError, match="one class of model, found SavesBinary, Volatility"):
        write_bundle(several, tmp_path / "bundle", loaders=LOADERS, metadata=METADATA, specs={})
    assert list(tmp_path.iterdir()) == []
