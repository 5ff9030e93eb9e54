"""How fast Emoji Scenes are drawn, in scenes per second, by their content.

python benchmarks/emoji_scenes.py [--threads 2] [--batch-size 256] [--seconds 3] [--quick]
"""

import statistics
import time

from report import Report, options, parse
from torch.utils.data import DataLoader

from analyses.data import EmojiScenes

_MANY = 10**9


def scenes_per_second(scenes: EmojiScenes, batch_size: int, seconds: float) -> float:
    """Median over batches, after one warm-up batch."""
    scenes.batch(range(batch_size))
    rates = []
    start, end = batch_size, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        scenes.batch(range(start, start + batch_size))
        rates.append(batch_size / (time.perf_counter() - begun))
        start += batch_size
    return statistics.median(rates)


def loaded_per_second(scenes: EmojiScenes, batch_size: int, seconds: float, workers: int) -> float:
    """Through a DataLoader with worker processes, after one warm-up batch per worker."""
    batches = iter(DataLoader(scenes, batch_size=batch_size, num_workers=workers))
    for _ in range(workers):
        next(batches)
    begun, drawn = time.perf_counter(), 0
    while time.perf_counter() < begun + seconds:
        drawn += len(next(batches)[1])
    return drawn / (time.perf_counter() - begun)


def main() -> None:
    """Print one row for each kind of scenes."""
    parser = options(__doc__ or "", {"seconds": 1.0}, batch_size=256, seconds=3.0)
    arguments = parse(parser)
    one, mixed = EmojiScenes(_MANY, seed=0), EmojiScenes(_MANY, seed=0, objects="mixed")
    kinds = {
        "one object": one,
        "mixed": mixed,
        "two objects": EmojiScenes(_MANY, seed=0, objects=2),
        "mixed, object swapped": mixed.swap_object(),
        "mixed, object half hidden (drawn twice)": mixed.occlude(0.5),
        "one object, 224 pixels": EmojiScenes(_MANY, seed=0, image_size=224),
    }
    report = Report("emoji_scenes", ("scenes", f"scenes / s, batches of {arguments.batch_size}"), arguments)
    for name, scenes in kinds.items():
        report.row(name, f"{scenes_per_second(scenes, arguments.batch_size, arguments.seconds):,.0f}")
    loaded = loaded_per_second(mixed, arguments.batch_size, arguments.seconds, arguments.threads)
    report.row(f"mixed, DataLoader with {arguments.threads} workers", f"{loaded:,.0f}")
    report.finish()


if __name__ == "__main__":
    main()
