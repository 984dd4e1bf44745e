"""What a ranking is worth: whether its first place is clear, and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerprobe.diagnosis.trials import CENTRED

if TYPE_CHECKING:
    from layerprobe.diagnosis.norms import StoredNorm
    from layerprobe.diagnosis.ranking import Ranked
    from layerprobe.records import Preprocessing

LEAST = 8
"""Images. With fewer, how much they differ from each other cannot be told from how much the presets do."""
CLEAR_TIMES = 3.0
"""The next preset's divergence has to be so many times the best one's, and ..."""
RARE_TIMES = 10.0
"""... or so many times, where the best is no preset: images of half the contrast look scaled by half ..."""
CLEAR_ERRORS = 3.0
"""... so many standard errors above it."""
FITS = 0.5
"""A larger divergence, in nats, and even the best way does not fit."""
TIE_ERRORS = 3.0
"""Ways that are fewer standard errors above the best, of the same preset, cannot be told from it ..."""
ORDER_TIMES = 1.1
"""... nor can those whose divergence is less than so many times as large, where the order of colours is asked
for, ..."""
RESIZE_TIMES = 1.5
"""... or the filter: images that are a little softer than those of training look as another filter does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to make of a ranking."""

    clear: bool
    """Whether it tells."""
    preprocessing: Preprocessing | None
    """What it tells; what it leaves open is as it mostly is. None where it tells nothing."""
    ties: tuple[Ranked, ...]
    """What cannot be told from that."""
    reason: str
    """In words."""


def judge_presets(ranked: Sequence[Ranked], norms: Sequence[StoredNorm], images: int) -> Verdict:
    """Say which preset it was, if that is clear.

    Args:
        ranked: All presets, the best first.
        norms: The layers that tell.
        images: How many images were looked at.
    """
    best = ranked[0]
    runner_up = next(one for one in ranked if one.family != best.family)
    where = f"`{norms[0].address}`"
    if images < LEAST:
        return _nothing(f"{_images(images)} too few to tell by: at least {LEAST} are needed")
    if not best.divergence <= FITS:  # NaN does not either
        return _nothing(
            f"what arrives at {where} is not what it has seen in training, whatever the preset: with "
            f"{best.preset}, the best, the divergence is {best.divergence:.2g}, and {FITS} is the most"
        )
    needed = RARE_TIMES if best.family == CENTRED else CLEAR_TIMES
    if runner_up.times < needed or runner_up.errors < CLEAR_ERRORS:
        return _nothing(
            f"{best.preset} and {runner_up.preset} cannot be told apart for sure: at {where} the first "
            f"fits {_times(runner_up.times)} better ({runner_up.errors:.1f} standard errors)"
        )
    same = [one for one in ranked if one.family == best.family]
    ties = [one for one in same if _tied(one, ORDER_TIMES)]
    # Of what cannot be told apart, the order that the preset has by itself is by far the more common.
    chosen = next((one for one in ties if one.preset == best.family), best)
    order = f"; that the colours are in the order {chosen.preprocessing.channel_order.upper()} is assumed"
    return Verdict(
        True,
        chosen.preprocessing,
        tuple(one for one in ties if one is not chosen),
        f"what arrives at {where} fits what it has seen in training {_times(runner_up.times)} better than "
        f"with {runner_up.preset}, the next best{order if len(ties) > 1 else ''}",
    )


def judge_resizing(ranked: Sequence[Ranked], like: Preprocessing) -> Verdict:
    """Say which filter and crop it was, if that is clear.

    Args:
        ranked: All ways, the best first.
        like: As it is by default, which is taken where nothing speaks against it.
    """
    ties = [one for one in ranked if _tied(one, RESIZE_TIMES)]
    default = next((one for one in ties if _how(one.preprocessing) == _how(like)), None)
    chosen = default or ties[0]
    others = tuple(one for one in ties if one is not chosen)
    clear = len(ties) < len(ranked)
    reason = "how the images are resized makes no difference that shows"
    if clear:
        first = next(one for one in ranked if not _tied(one, RESIZE_TIMES))
        reason = (
            f"resized with {_how_text(first.preprocessing)}, the next best, they fit "
            f"{_times(first.times)} worse"
        )
    return Verdict(clear, chosen.preprocessing, others, reason)


def _tied(one: Ranked, times: float) -> bool:
    return one.errors < TIE_ERRORS or one.times < times


def _nothing(reason: str) -> Verdict:
    return Verdict(False, None, (), reason)


def _how(how: Preprocessing) -> tuple[str, str]:
    return how.resize, how.crop


def _how_text(how: Preprocessing) -> str:
    return how.resize if how.crop == "none" else f"{how.resize} with --crop {how.crop}"


def _times(times: float) -> str:
    return f"{times:,.0f} times" if times >= 10 else f"{times:.2g} times"


def _images(images: int, one: str = "is", more: str = "are") -> str:
    return f"1 image {one}" if images == 1 else f"{images} images {more}"
