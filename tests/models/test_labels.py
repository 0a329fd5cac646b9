"""Labels against scenes that can be computed by hand: a sphere, a cylinder, planes, a box before a wall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("skimage")

from scenes import (
    ACROSS,
    FOCAL,
    GOLDENS,
    RAYS,
    SIZE,
    box_before_wall,
    frame,
    plane,
    rooms_labels,
    round_thing,
)
from skimage.feature import hessian_matrix_det
from skimage.filters import gaussian, sobel

from mas_edge.models.workloads.buildings import labels as made
from mas_edge.models.workloads.buildings.labels import labels
from mas_edge.models.workloads.buildings.records import LABELS


def curvatures(frame):
    hit = np.isfinite(frame.depth_HW)
    return [k[hit] for k in made.curvature(made.points_of(frame), frame.normal_HW3, hit, frame.focal_px)]


def per_m(stored):
    return (stored.astype(float) - 127) / 127 / 0.03


# --- depth, mask, classes --------------------------------------------------------------------------


def test_depth_is_in_steps_of_a_512th_metre_and_65535_where_nothing_was_hit():
    given = box_before_wall(box_m=1.0, wall_m=3.5)
    given.depth_HW[0, 0] = np.inf
    depth = labels(given, SIZE)["depth_zbuffer"]
    assert depth.dtype == np.uint16
    assert (depth[0, 0], depth[0, 1], depth[0, SIZE // 4]) == (65535, 1792, 512)


def test_far_depth_never_wraps_into_a_near_one():
    assert made.depth16(np.array([127.9, 128.0, 1000.0, np.inf], np.float32)).tolist() == [
        65485,
        65534,
        65534,
        65535,
    ]


def test_the_depth_of_a_plane_at_an_angle_is_the_one_computed_by_hand():
    stored = labels(plane([1, 0, -1], 2.0), SIZE)["depth_zbuffer"] / 512
    by_hand = 2.0 * np.sqrt(2) / (1 - ACROSS)
    np.testing.assert_allclose(stored, np.broadcast_to(by_hand, (SIZE, SIZE)), atol=0.51 / 512)


def test_depth_and_classes_are_samples_never_mixtures():
    label = np.ones((SIZE, SIZE), np.uint8)
    label[:, SIZE // 4 : SIZE // 2] = 7
    scene = box_before_wall()
    small = labels(frame(scene.depth_HW, scene.normal_HW3, label=label), SIZE // 4)
    assert set(np.unique(small["depth_zbuffer"])) == {1024, 2048}
    assert set(np.unique(small["segment_semantic"])) == {1, 7}


def test_depth_is_the_sample_beside_the_middle_of_its_pixel_even_on_a_slope_or_beside_a_hole():
    slope = np.broadcast_to(2 + np.arange(SIZE) / 64, (SIZE, SIZE)).copy()
    slope[2, 2] = np.inf
    depth = labels(frame(slope, [0, 0, -1]), SIZE // 4)["depth_zbuffer"]
    assert depth[1].tolist() == [1024 + 8 * (4 * column + 2) for column in range(SIZE // 4)]
    assert depth[0, 0] == 65535


def test_a_pixel_that_straddles_two_classes_is_uncertain():
    label = np.ones((SIZE, SIZE), np.uint8)
    label[:, 21:] = 5  # the border is inside of the sixth pixel of four samples
    small = labels(frame(2.0, [0, 0, -1], label=label), SIZE // 4)["segment_semantic"]
    assert small[0].tolist() == [1] * 5 + [0] + [5] * 10


# --- normals and shading ---------------------------------------------------------------------------


def test_a_wall_seen_straight_on_has_the_normal_towards_the_camera():
    normal = labels(plane([0, 0, -1], 2.0), SIZE)["normal"]
    np.testing.assert_array_equal(normal, np.broadcast_to([128, 128, 255], normal.shape))


@pytest.mark.parametrize("tilt", [(0.6, 0, -0.8), (0, -0.6, -0.8), (0.5, 0.5, -0.5)])
def test_the_normal_of_a_plane_is_stored_to_half_a_step(tilt):
    normal = labels(plane(tilt, 2.0), SIZE)["normal"]
    seen = normal[np.isfinite(plane(tilt, 2.0).depth_HW)]
    unit = np.array(tilt) * [1, -1, -1] / np.linalg.norm(tilt)  # stored: right, up, towards the viewer
    np.testing.assert_allclose(seen / 127.5 - 1, np.broadcast_to(unit, seen.shape), atol=0.51 / 127.5)


def test_the_mean_normal_of_a_pixel_has_unit_length_and_leaves_holes_out():
    scene = round_thing((0, 0, 3.0), 1.0, axes="xyz")
    small = labels(scene, SIZE // 4)["normal"] / 127.5 - 1
    covered = np.isfinite(scene.depth_HW).reshape(SIZE // 4, 4, SIZE // 4, 4).any((1, 3))
    np.testing.assert_allclose(np.linalg.norm(small[covered], axis=-1), 1, atol=0.01)
    assert (labels(scene, SIZE // 4)["normal"][~covered] == 128).all()


def test_the_lamp_at_the_camera_shades_by_cosine_and_distance():
    wall = labels(plane([0, 0, -1], 3.0), SIZE)["reshading"]
    square = 9 * (RAYS**2).sum(-1)
    cosine = 3 / np.sqrt(square)
    np.testing.assert_allclose(wall / 255, cosine * 64 / (64 + square), atol=0.51 / 255)


def test_shading_is_half_at_eight_metres_and_dark_in_holes():
    axis = np.array([[[0, 0, 8.0], [0, 0, 0]]], np.float32)
    normal = np.array([[[0, 0, -1.0], [0, 0, 0]]], np.float32)
    assert made.shading(axis, normal).tolist() == [[0.5, 0.0]]


def test_shading_and_curvature_are_means_over_what_was_hit():
    wall, ball = plane([0, 0, -1], 3.0), round_thing((0, 0, 1.0), 0.1, axes="xyz")
    middle = slice(SIZE // 8 - 1, SIZE // 8 + 1)
    torn = []
    for scene in (wall, ball):
        depth = scene.depth_HW.copy()
        depth[::4, ::4] = np.inf
        torn.append(labels(frame(depth, scene.normal_HW3), SIZE // 4))
    whole = labels(wall, SIZE // 4)["reshading"].astype(int)
    np.testing.assert_allclose(torn[0]["reshading"], whole, atol=2)
    np.testing.assert_allclose(per_m(torn[1]["principal_curvature"][middle, middle]), 10, atol=0.3)


# --- curvature -------------------------------------------------------------------------------------


@given(st.floats(0.3, 1.4))
def test_a_sphere_has_the_inverse_of_its_radius_as_both_curvatures(radius):
    larger, smaller = curvatures(round_thing((0, 0, 3.0), radius, axes="xyz"))
    np.testing.assert_allclose(larger, 1 / radius, rtol=0.01)
    np.testing.assert_allclose(smaller, 1 / radius, rtol=0.01)


@given(st.floats(0.2, 1.0))
def test_a_cylinder_is_curved_one_way_and_straight_the_other(radius):
    larger, smaller = curvatures(round_thing((0, 0, 3.0), radius, axes="xz"))
    np.testing.assert_allclose(larger, 1 / radius, rtol=0.01)
    np.testing.assert_allclose(smaller, 0, atol=0.01 / radius)


@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2))
def test_a_plane_is_flat_at_every_angle(sideways, upwards):
    stored = labels(plane([sideways, upwards, -1], 2.0), SIZE)["principal_curvature"]
    assert (stored == 127).all()


def test_what_bulges_away_is_negative():
    ball = round_thing((0, 0, 3.0), 1.0, axes="xyz")
    bowl = frame(ball.depth_HW, -ball.normal_HW3)
    larger, smaller = curvatures(bowl)
    np.testing.assert_allclose([larger, smaller], -1, rtol=0.01)


def test_a_step_in_depth_is_not_a_bend():
    assert (labels(box_before_wall(), SIZE)["principal_curvature"] == 127).all()


def test_a_ball_before_a_wall_is_curved_up_to_its_rim():
    ball = round_thing((0, 0, 3.0), 0.8, axes="xyz")
    front = np.isfinite(ball.depth_HW)
    depth = np.where(front, ball.depth_HW, 5.0)
    scene = frame(depth, np.where(front[..., None], ball.normal_HW3, [0, 0, -1]))
    larger, _ = made.curvature(made.points_of(scene), scene.normal_HW3, front | True, FOCAL)
    assert np.mean(np.abs(larger[front] - 1.25) < 0.02) > 0.99
    np.testing.assert_array_equal(larger[~front] == 0, True)


def test_a_concave_corner_of_two_walls_bends_along_one_direction():
    left, right = plane([1, 0, -1], 2.0), plane([-1, 0, -1], 2.0)
    nearer = left.depth_HW < right.depth_HW
    scene = frame(
        np.minimum(left.depth_HW, right.depth_HW),
        np.where(nearer[..., None], left.normal_HW3, right.normal_HW3),
    )
    larger, smaller = made.curvature(
        made.points_of(scene), scene.normal_HW3, np.isfinite(scene.depth_HW), FOCAL
    )
    middle = slice(SIZE // 2 - 1, SIZE // 2 + 1)
    assert (smaller[:, middle] < -5).all()
    np.testing.assert_allclose(larger, 0, atol=1e-3)
    assert (smaller[:, : SIZE // 2 - 2] == 0).all()


def test_curvature_is_stored_around_127_and_saturates_at_33_per_m():
    ball = round_thing((0, 0, 3.0), 1.0, axes="xyz")
    centre = labels(ball, SIZE)["principal_curvature"][SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(per_m(centre), [1, 1], atol=0.14)
    tiny = round_thing((0, 0, 0.11), 0.01, axes="xyz")
    assert labels(tiny, SIZE)["principal_curvature"][SIZE // 2, SIZE // 2].tolist() == [254, 254]


# --- edges, keypoints, picture ----------------------------------------------------------------------


def test_the_occlusion_edge_of_a_box_before_a_wall_is_the_one_computed_by_hand():
    near, far = np.sqrt(1024) / 256, np.sqrt(2048) / 256
    edge = labels(box_before_wall(), SIZE)["edge_occlusion"]
    by_hand = (far - near) / np.sqrt(2) * 65535 * SIZE / 512  # the step, as the RMS over two axes
    at = {SIZE // 4 - 1, SIZE // 4, SIZE // 2 - 1, SIZE // 2}
    for column in range(SIZE):
        np.testing.assert_allclose(edge[:, column], by_hand if column in at else 0, atol=0.51)


def test_a_hole_has_no_occlusion_edge_of_its_own():
    depth = np.full((SIZE, SIZE), 3.0)
    depth[20:30, 20:30] = np.inf
    assert not labels(frame(depth, [0, 0, -1]), SIZE)["edge_occlusion"].any()


def random_picture():
    return np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def test_texture_edges_and_keypoints_are_those_of_scikit_image_on_the_same_picture():
    rgb = random_picture()
    grey = rgb / 255 @ [0.2125, 0.7154, 0.0721]
    stored = labels(frame(2.0, [0, 0, -1], rgb=rgb), SIZE)
    edges = sobel(gaussian(grey, 0.8)) * SIZE / 512
    np.testing.assert_allclose(stored["edge_texture"], edges * 65535, atol=0.51)
    mirrored = np.pad(grey, 30, mode="symmetric")
    for image, inner in ((grey, slice(16, -16)), (mirrored, slice(30, -30))):
        scales = [hessian_matrix_det(image, sigma) for sigma in (1, 3, 4, 5, 6, 7, 8, 9, 10)]
        strongest = np.max(scales, 0)[inner, inner].clip(0) * 65535
        ours = stored["keypoints2d"][inner, inner] if image is grey else stored["keypoints2d"]
        np.testing.assert_allclose(ours, strongest, atol=0.51)


def test_large_pictures_get_wider_filters():
    grey = np.random.default_rng(6).random((256, 256))
    np.testing.assert_allclose(made.texture_edges(grey), sobel(gaussian(grey, 1.5)) / 2)
    scales = [hessian_matrix_det(grey, sigma) for sigma in (1, 2, 4, 5, 7, 9, 10, 12, 13, 15)]
    inner = slice(24, -24)
    strongest = np.max(scales, 0).clip(0)
    np.testing.assert_allclose(made.keypoints(grey)[inner, inner], strongest[inner, inner], atol=1e-9)


def test_a_blank_picture_has_no_keypoint_and_no_texture_edge_not_even_at_its_border():
    blank = labels(frame(2.0, [0, 0, -1]), SIZE)
    assert not blank["keypoints2d"].any()
    assert not blank["edge_texture"].any()


def test_appearance_labels_see_the_picture_alone_and_geometry_labels_never_see_it():
    flat, scene = frame(2.0, [0, 0, -1], rgb=random_picture()), round_thing((0, 0, 3.0), 1.0, axes="xyz")
    seen = labels(flat, SIZE)
    other = labels(frame(scene.depth_HW, scene.normal_HW3, rgb=flat.rgb_HW3), SIZE)
    plain = labels(scene, SIZE)
    for name in ("keypoints2d", "edge_texture", "rgb"):
        np.testing.assert_array_equal(seen[name], other[name])
    for name in ("depth_zbuffer", "normal", "edge_occlusion", "reshading", "principal_curvature"):
        np.testing.assert_array_equal(plain[name], other[name])


def test_the_picture_is_the_mean_of_its_samples():
    rgb = random_picture()
    small = labels(frame(2.0, [0, 0, -1], rgb=rgb), SIZE // 2)["rgb"]
    mean = rgb.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).astype(float).mean((1, 3))
    np.testing.assert_allclose(small, mean, atol=0.5)


def test_a_size_that_does_not_divide_the_view_is_refused():
    with pytest.raises(ValueError, match=r"64 x 64.*48 x 48"):
        labels(frame(2.0, [0, 0, -1]), 48)


# --- twelve rooms -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rooms():
    return rooms_labels()


@pytest.mark.parametrize("name", LABELS)
def test_twelve_rooms_have_the_labels_that_they_always_had(rooms, name):
    """Fails when labels are made differently: then raise records.FORMAT, so that fingerprints differ."""
    with np.load(GOLDENS) as goldens:
        golden, found = goldens[name], rooms[name]
    assert (found.dtype, found.shape) == (golden.dtype, golden.shape)
    sampled = name in {"segment_semantic", "depth_zbuffer"}
    off = np.abs(found.astype(np.int64) - golden)
    assert off.max() <= 1, "another machine may round another way, and no more"
    assert (off > 0).mean() <= (0 if sampled else 0.01)


def test_the_rooms_hold_what_a_label_could_get_wrong(rooms):
    assert {0, 1, 9, 11, 13, 15} <= set(np.unique(rooms["segment_semantic"]))
    assert (rooms["depth_zbuffer"] == made.NO_DEPTH).any()
    assert rooms["principal_curvature"].std((0, 1, 2)).min() > 5
    for name in LABELS:
        assert len(np.unique(rooms[name])) > 4
