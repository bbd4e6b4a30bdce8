"""The child that fills and asks a vector database: Milvus Lite, in a file of its own that is gone afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.data import child
from compress.data.child import Channel, Data

_ROWS: Final = 1_000
"""Rows in one request: a message to the database may not be larger than a few megabytes."""

_COLLECTION: Final = "gallery"


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has this signature)
    """Store `gallery.npy`, look up every `queries-<n>.npy`, and write the places found to `found-<n>.npy`."""
    folder, limit = Path(request["folder"]), request["limit"]
    client = _filled(folder / "index.db", np.load(folder / "gallery.npy", allow_pickle=False))
    try:
        for at in range(request["sets"]):
            queries = np.load(folder / f"queries-{at}.npy", allow_pickle=False)
            np.save(folder / f"found-{at}.npy", _found(client, queries, limit))
    finally:
        client.close()
    return {}


def _filled(file: Path, rows: NDArray[np.float32]) -> Any:
    """A database that holds the rows under their places, with an exact (flat) index of inner products."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(file))
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("place", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(_COLLECTION, schema=schema, index_params=index)
    for at in range(0, len(rows), _ROWS):
        part = rows[at : at + _ROWS]
        client.insert(_COLLECTION, [{"place": at + step, "vector": row} for step, row in enumerate(part)])
    client.load_collection(_COLLECTION)
    return client


def _found(client: Any, queries: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    made = np.full((len(queries), limit), -1, np.int64)
    for at in range(0, len(queries), _ROWS):
        part = list(queries[at : at + _ROWS])
        told = client.search(
            _COLLECTION, data=part, anns_field="vector", limit=limit, search_params={"metric_type": "IP"},
            output_fields=["place"], consistency_level="Strong",
        )  # fmt: skip
        for row, hits in enumerate(told, at):
            places = [hit["place"] for hit in hits]
            made[row, : len(places)] = places
    return made


if __name__ == "__main__":
    sys.exit(child.serve(work))
