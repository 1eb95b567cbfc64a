"""Sounds on their way into a shard: cut to segments once, so that a crop of a second does not decode ten minutes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from datamodules.build.features import FEATURES, to_npy
from datamodules.build.measure import bandwidth, clipping
from datamodules.build.prepare import Parts, Prepared, Preparer
from datamodules.build.source import Entry
from datamodules.clip import loudness, resample, to_channels
from datamodules.sound import RATES, SOUNDS, read_sound, require
from mmtok.schema import suggest

REASONS = ("short", "silent", "clipped")
"""Why a segment is left out."""
NARROW = 0.52
"""Share of the range up to half the sample rate, up to which a file counts as narrow: half, and a filter's slope."""
MAX_NAMED = 100


@dataclass(frozen=True, kw_only=True)
class SoundOptions:
    """What `mmtok shards build` takes for sounds."""

    seconds: float = 10.0
    """Longest segment; a longer file is cut into as few equal ones as possible, so that none is a short rest."""
    min_seconds: float = 0.1
    """Shortest segment that is taken."""
    sample_rate: int | None = None
    """Resample to it; None keeps each file's own."""
    channels: int | None = None
    """1 mixes down; None keeps each file's own."""
    min_loudness: float = -60.0
    """Root mean square in dB below full scale, under which a segment counts as silent and is left out."""
    max_clipping: float = 0.01
    """Share of samples held at full scale, above which a segment is left out."""
    features: str | None = None
    """Teacher features to write beside each segment, as NAME.npy."""

    def __post_init__(self) -> None:
        if self.sample_rate is not None and self.sample_rate not in RATES:
            raise ValueError(f"sample_rate={self.sample_rate} must be {RATES.start:,} to {RATES.stop - 1:,}.")
        if not 0 < self.min_seconds <= self.seconds:
            raise ValueError(f"seconds={self.seconds} must be above 0 and at least min_seconds={self.min_seconds}.")
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels={self.channels} must be at least 1.")
        if self.features is not None and self.features not in FEATURES:
            raise ValueError(f"there are no features '{self.features}'.{suggest(self.features, FEATURES)}")


class Sounds(Preparer):
    """Sounds become FLAC segments of 16 bits; what was measured in them goes into the manifest."""

    kind, noun = "audio", "sounds"
    extensions, options = SOUNDS, SoundOptions
    chosen: SoundOptions

    def __init__(self, options: SoundOptions) -> None:
        super().__init__(options)
        require()

    def prepare(self, entry: Entry) -> Prepared:
        parts = entry.read()
        extension = next(name for name in parts if name in SOUNDS)
        decoded = read_sound(parts.pop(extension), extension)
        rate = self.chosen.sample_rate or decoded.sample_rate
        measures = {"bandwidth": min(bandwidth(*decoded), rate / 2), "rate": rate, "seconds": 0.0}
        sound = resample(decoded.samples, decoded.sample_rate, rate)
        if self.chosen.channels:
            sound = to_channels(sound, self.chosen.channels)
        samples, left_out = [], Counter[str]()
        for suffix, segment in segments(sound, round(self.chosen.seconds * rate)):
            if reason := self.objection(segment, rate):
                left_out[reason] += 1
                continue
            samples.append((entry.key + suffix, self.members(segment, rate) | parts))
            measures["seconds"] += segment.shape[1] / rate
        why = f"{left_out.most_common(1)[0][0]} ({self.describe(sound, rate)})" if not samples else ""
        return Prepared(samples, measures | left_out, why)

    def objection(self, segment: np.ndarray, rate: int) -> str:
        """Why a segment is left out; nothing where it is taken."""
        if segment.shape[1] < self.chosen.min_seconds * rate:
            return "short"
        if loudness(segment) < self.chosen.min_loudness:
            return "silent"
        return "clipped" if clipping(segment) > self.chosen.max_clipping else ""

    def members(self, segment: np.ndarray, rate: int) -> Parts:
        """The files of a sample."""
        members = {"flac": to_flac(segment, rate)}
        if self.chosen.features:
            members[f"{self.chosen.features}.npy"] = to_npy(FEATURES[self.chosen.features].compute(segment, rate))
        return members

    @staticmethod
    def describe(sound: np.ndarray, rate: int) -> str:
        """The numbers that the filters look at."""
        return f"{sound.shape[1] / rate:.2f} s, {loudness(sound):.0f} dB, {clipping(sound):.1%} at full scale"

    def facts(self, measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        read = {key: one for key, one in measures.items() if one}
        # Bandwidth is of what stands in the shards: silence has none, and would pass for narrow.
        kept = {key: one for key, one in read.items() if one["seconds"]} or read
        widths = [one["bandwidth"] for one in kept.values()]
        narrow = sorted(key for key, one in kept.items() if one["bandwidth"] <= NARROW * one["rate"] / 2)
        facts: dict[str, Any] = {
            "hours": round(sum(one["seconds"] for one in read.values()) / 3600, 4),
            "sample_rates": dict(sorted(Counter(str(int(one["rate"])) for one in read.values()).items())),
            "left_out": {reason: int(sum(one.get(reason, 0) for one in read.values())) for reason in REASONS},
            "bandwidth": {
                "files": len(kept),
                "median": round(float(np.median(widths))),
                "tenth": round(float(np.percentile(widths, 10))),
                "narrow": len(narrow),
                "narrow_share": round(len(narrow) / len(kept), 4),
                "narrow_files": narrow[:MAX_NAMED],
            },
        }
        if self.chosen.features:
            feature = FEATURES[self.chosen.features]
            facts["features"] = {self.chosen.features: {"rate": feature.rate, "about": feature.about}}
        return facts

    def remarks(self, facts: Mapping[str, Any]) -> list[str]:
        width, left_out = facts["bandwidth"], facts["left_out"]
        rates = " and ".join(f"{int(rate):,} Hz" for rate in facts["sample_rates"])
        out = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
        lines = [
            f"{facts['hours']:.2f} h at {rates}, bandwidth {width['median']:,} Hz (median), "
            f"{out or 'no'} segments left out"
        ]
        if width["narrow"]:
            named = ", ".join(width["narrow_files"][:3])
            lines.append(
                f"WARNING: {width['narrow']:,} of {width['files']:,} files hold nothing in the upper half of what "
                f"their sample rate can carry ({named}{' ...' if width['narrow'] > 3 else ''}): a codec trained on "
                "them learns to leave it out. Their names are in the manifest."
            )
        return lines


def segments(sound: np.ndarray, longest: int) -> Iterator[tuple[str, np.ndarray]]:
    """As few equal pieces as possible of at most `longest` samples, each with what its key adds to the file's."""
    length = sound.shape[1]
    count = max(1, ceil(length / longest))
    for i in range(count):
        yield f"-{i:04d}" * (count > 1), sound[:, i * length // count : (i + 1) * length // count]


def to_flac(samples: np.ndarray, rate: int) -> bytes:
    """(C, S) -> FLAC of 16 bits."""
    import soundfile

    buffer = io.BytesIO()
    whole = (samples.T * 32768).round().clip(-32768, 32767).astype(np.int16)
    soundfile.write(buffer, whole, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
