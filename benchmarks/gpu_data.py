"""Real beats in one small file, for a GPU machine that has neither records nor their readers.

    python benchmarks/gpu_data.py --data path/to/mitdb beats.npz

Writes the beats of one lead as an ordinary source of kdsearch (``data.source: beats.npz``): the
same rows in the same order, so that every split is the same as of the records. Beats are
scaled to -1..1 and rounded to float16 (11 bits, as the records themselves), compressed by LZMA.
Prints the test AUC of a principal component analysis of both, to see that nothing is lost.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from kdsearch.data import Beats, DataSettings, cache_dir, load_beats, normalise, prepare
from kdsearch.metrics.ranking import rank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", required=True, help="as of run_search.py")
    options = parser.parse_args()
    cut = load_beats(DataSettings(source=options.data), cache_dir())
    write(cut, options.output)
    written = load_beats(DataSettings(source=str(options.output)), cache_dir())
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.1f} MiB")
    print(f"test AUC of a PCA: {pca_auc(cut):.5f} of the records, {pca_auc(written):.5f} of it")


def write(beats: Beats, path: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {
        "x": normalise(np.asarray(beats.x[:, 0])).astype(np.float16),
        "y": beats.classes,
    }
    if beats.record is not None:
        arrays["record"] = np.asarray(beats.record)
    # numpy.savez_compressed knows deflate alone, which makes the file a third larger.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def pca_auc(beats: Beats) -> float:
    data = prepare(beats, DataSettings(split="fold"))
    train, x = data.training.train[:, 0], data.test.x[:, 0]
    pca = PCA(20, svd_solver="covariance_eigh").fit(train)
    errors = ((pca.inverse_transform(pca.transform(x)) - x) ** 2).mean(axis=1)
    return float(rank(errors, data.test.abnormal).roc_auc())


if __name__ == "__main__":
    main()
