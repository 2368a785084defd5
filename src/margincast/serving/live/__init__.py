"""Live mode: margins that follow the feed event by event, and fall back to safety when it fails.

The forecast, the policy's chain and the table are those of batch scoring; what is here decides when
they are asked, and whether their answer may be believed.
"""
