"""Whether an output is what it says: its structure, its checksums, its failed rows, and its numbers anew."""

from layerprobe.verification.output import Verification, as_plain, verify

__all__ = ["Verification", "as_plain", "verify"]
