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


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has this signature)
    """Store every `gallery-<n>.npy`, look up every `queries-<m>.npy` in it, write the places to `found-<n>-<m>.npy`."""
    from pymilvus import MilvusClient

    folder, limit = Path(request["folder"]), request["limit"]
    client = MilvusClient(str(folder / "index.db"))
    try:
        for held in range(request["galleries"]):
            collection = f"gallery_{held}"
            rows = np.load(folder / f"gallery-{held}.npy", allow_pickle=False)
            _fill(client, collection, rows)
            for at in range(request["sets"]):
                queries = np.load(folder / f"queries-{at}.npy", allow_pickle=False)
                np.save(folder / f"found-{held}-{at}.npy", _found(client, collection, queries, min(limit, len(rows))))
    finally:
        client.close()
    return {}


def _fill(client: Any, collection: str, rows: NDArray[np.float32]) -> None:
    """Store rows under their places, with an exact (flat) index of inner products."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("place", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(collection, schema=schema, index_params=index)
    for at in range(0, len(rows), _ROWS):
        part = rows[at : at + _ROWS]
        client.insert(collection, [{"place": at + step, "vector": row} for step, row in enumerate(part)])
    client.load_collection(collection)


def _found(client: Any, collection: str, queries: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    made = np.full((len(queries), limit), -1, np.int64)
    for at in range(0, len(queries), _ROWS):
        part = list(queries[at : at + _ROWS])
        told = client.search(
            collection, data=part, anns_field="vector", limit=limit, search_params={"metric_type": "IP"},
            output_fields=["place"], consistency_level="Strong",
        )  # fmt: skip
        for row, hits in enumerate(told, at):
            places = [hit["place"] for hit in hits]
            made[row, : len(places)] = places
    return made


if __name__ == "__main__":
    sys.exit(child.serve(work))
