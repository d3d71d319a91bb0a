"""Makes a small labelled dataset with embedded images, as SLEAP's exporter does (.pkg.slp).

    VENV/bin/python examples/sleap/make_data.py labels.pkg.slp [--frames 20] [--animals 1]

Each animal is three blobs on a line, of different size and brightness: head, thorax, abdomen.
Runs in the environment of `install.sh`.
"""

import argparse
import tempfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import sleap_io as sio

NODES = ("head", "thorax", "abdomen")
WIDTHS = (2.5, 4.0, 5.5)  # pixels
BRIGHTNESS = (220, 160, 110)


def draw(rng, size, animals):
    """One frame and the positions of its animals: (size, size) and (animals, nodes, 2)."""
    rows, columns = np.mgrid[:size, :size].astype("f4")
    image = rng.normal(20, 4, (size, size)).astype("f4")
    poses = np.zeros((animals, len(NODES), 2), "f4")
    band = size / animals  # each keeps to its own, so that no two overlap
    for animal in range(animals):
        middle = np.array(
            [
                band * (animal + 0.5) + rng.uniform(-0.1, 0.1) * band,
                size / 2 + rng.uniform(-0.2, 0.2) * size,
            ]
        )
        angle = rng.uniform(0, 2 * np.pi)
        along = np.array([np.cos(angle), np.sin(angle)]) * min(band, size) * 0.15
        poses[animal] = np.stack([middle + along, middle, middle - along])
        for (x, y), width, value in zip(poses[animal], WIDTHS, BRIGHTNESS, strict=True):
            blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width * width))
            image = np.maximum(image, value * blob)
    return np.clip(image, 0, 255).astype("u1"), poses


def make(out, frames=20, size=128, animals=1, seed=0):
    """Writes the dataset to `out`; its images travel inside it."""
    rng = np.random.default_rng(seed)
    skeleton = sio.Skeleton(
        nodes=list(NODES), edges=[("thorax", "head"), ("thorax", "abdomen")], name="blob"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths, poses = [], []
        for number in range(frames):
            image, where = draw(rng, size, animals)
            path = Path(folder) / f"frame.{number:04d}.png"
            iio.imwrite(path, image)
            paths.append(str(path))
            poses.append(where)
        video = sio.Video.from_filename(paths)
        labelled = [
            sio.LabeledFrame(
                video=video,
                frame_idx=number,
                instances=[sio.Instance.from_numpy(pose, skeleton=skeleton) for pose in where],
            )
            for number, where in enumerate(poses)
        ]
        labels = sio.Labels(videos=[video], skeletons=[skeleton], labeled_frames=labelled)
        labels.save(str(out), embed=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--animals", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make(**vars(options))
    print(f"{options.out}: {options.out.stat().st_size} bytes")
