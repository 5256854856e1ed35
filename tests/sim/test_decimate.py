# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pi05_websocket.sim.decimate import cluster, decimate, face_normals

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1.01, 1, 0]], dtype=np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3], [2, 4, 1], [0, 4, 3]], dtype=np.int32)


def test_cluster_merges_near_vertices() -> None:
    """Vertices in one cell become their mean; the sliver between them and the repeated face go."""
    vertices, faces = cluster(SQUARE, FACES, 0.5)

    assert len(vertices) == 4
    assert len(faces) == 2
    assert vertices[:, 0].max() == pytest.approx(1.005)


def test_cluster_keeps_winding() -> None:
    """Faces keep the side they show."""
    vertices, faces = cluster(SQUARE, FACES, 0.5)

    assert face_normals(vertices, faces)[:, 2] == pytest.approx([1.0, 1.0])


def test_faces_without_area_have_no_normal() -> None:
    """A degenerate face gets zeros instead of a division by zero."""
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=np.float32)

    assert face_normals(line, np.array([[0, 1, 2]], dtype=np.int32)).tolist() == [[0, 0, 0]]


def model(*, collides: bool, normals: int = 4) -> SimpleNamespace:
    """Return the parts of a compiled model that decimation touches, with one mesh."""
    return SimpleNamespace(
        nmesh=1,
        geom_type=np.array([7]),
        geom_contype=np.array([int(collides)]),
        geom_conaffinity=np.array([0]),
        geom_dataid=np.array([0]),
        mesh_vertadr=np.array([0]),
        mesh_vertnum=np.array([5]),
        mesh_faceadr=np.array([0]),
        mesh_facenum=np.array([4]),
        mesh_normaladr=np.array([0]),
        mesh_normalnum=np.array([normals]),
        mesh_vert=SQUARE.copy(),
        mesh_face=FACES.copy(),
        mesh_normal=np.zeros((4, 3), dtype=np.float32),
        mesh_facenormal=np.zeros((4, 3), dtype=np.int32),
    )


def test_decimate_rewrites_visual_meshes() -> None:
    """A mesh that only shows is coarsened in place, with flat normals."""
    coarse = model(collides=False)

    assert decimate(coarse, 0.5) == 2
    assert coarse.mesh_facenormal[:2].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert coarse.mesh_normal[:2, 2] == pytest.approx([1.0, 1.0])


def test_decimate_spares_what_collides() -> None:
    """A mesh that physics uses stays as it is."""
    assert decimate(model(collides=True), 0.5) == 4


def test_decimate_spares_what_has_no_room() -> None:
    """A mesh with fewer normals than coarse faces stays as it is."""
    assert decimate(model(collides=False, normals=1), 0.5) == 4
