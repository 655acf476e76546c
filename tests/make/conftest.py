"""The oracle's kernels are wrapped in torch.compile; they are the same without it, and start at once."""

import os

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
