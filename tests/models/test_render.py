"""Rendered buildings: what rays meet, how views are taken, and that sets come out the same."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("embreex")

from mas_edge.models.tasks import DataRefused, UnknownChoice
from mas_edge.models.workloads.buildings import archive, catalogue, make, solids, texture
from mas_edge.models.workloads.buildings.building import Surfaces, draw_building
from mas_edge.models.workloads.buildings.camera import HEIGHT_M, draw_camera, look_at
from mas_edge.models.workloads.buildings.frame import CLASSES
from mas_edge.models.workloads.buildings.furnish import furnish
from mas_edge.models.workloads.buildings.plan import DOOR_M, ROOMS, draw_plan
from mas_edge.models.workloads.buildings.records import LABELS
from mas_edge.models.workloads.buildings.render import TOGETHER, render
from mas_edge.models.workloads.buildings.style import KINDS, draw_style
from mas_edge.models.workloads.buildings.workload import CLASSES as PRIORS
from mas_edge.orchestrator.cli import main

SHIPPED_SHA256 = "69973e4bc968f4d8dcb4d671448f02c7e54d39800e9147cf179b6c47cd83a6ec"
SIZE = 32

seeds = st.integers(0, 2**32)


def rng(*path):
    return np.random.default_rng(path)


def aimed(building, count):
    """Cameras with generators that are where they were."""
    return [(draw_camera(own, building), own) for own in (rng(7, view) for view in range(count))]


@pytest.fixture(scope="module")
def building():
    return draw_building(rng(5))


@pytest.fixture(scope="module")
def frames(building):
    return list(render(building, aimed(building, 24), SIZE))


# --- plans and furniture ----------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_rooms_fill_the_plan_and_every_room_has_a_door(seed):
    plan = draw_plan(rng(seed), dict.fromkeys(KINDS, 1.0))
    assert ROOMS[0] <= len(plan.rooms) <= ROOMS[1]
    areas = [(room.x1 - room.x0) * (room.y1 - room.y0) for room in plan.rooms]
    assert sum(areas) == pytest.approx(plan.width * plan.depth)
    for room in plan.rooms:
        assert any(hole.low == 0 for side in room.sides if not side.outside for hole in side.openings)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_every_door_opens_into_two_rooms_and_holes_stay_in_their_wall(seed):
    plan = draw_plan(rng(seed), dict.fromkeys(KINDS, 1.0))
    sides = [side for room in plan.rooms for side in room.sides]
    for side in sides:
        edges = [edge for hole in side.openings for edge in (hole.start, hole.end)]
        assert edges == sorted(edges)
        assert all(side.start < edge < side.end for edge in edges)
        assert all(hole.high < plan.height for hole in side.openings)
        if not side.outside:
            for hole in side.openings:
                behind = [s for s in sides if (s.axis, s.at, s.inward) == (side.axis, side.at, -side.inward)]
                assert sum(hole in other.openings for other in behind) == 1


@given(seeds)
@settings(max_examples=12, deadline=None)
def test_what_stands_in_a_room_stays_in_it_and_out_of_doorways(seed):
    plan = draw_plan(rng(seed), dict.fromkeys(KINDS, 1.0))
    room = plan.rooms[0]
    furnished = furnish(rng(seed, 1), room, plan)
    low, high = solids.bounds(furnished.solids) if furnished.solids else (np.zeros(3), np.zeros(3))
    if furnished.solids:
        assert (low[:2] > (room.x0 - 0.35, room.y0 - 0.35)).all()
        assert (high[:2] < (room.x1 + 0.35, room.y1 + 0.35)).all()
    for side in room.sides:
        for hole in side.openings:
            if hole.low == 0:
                x, y = side.point((hole.start + hole.end) / 2, DOOR_M[0] / 4)
                assert not any(b.x0 < x < b.x1 and b.y0 < y < b.y1 for b in furnished.taken)


def test_every_model_of_the_catalogue_is_painted_and_of_its_class():
    paints = draw_style(rng(1)).paints
    for kind in catalogue.COATS:
        for name in (*catalogue.standing(kind), *catalogue.SMALL.get(kind, ())):
            for part in catalogue.model(kind, name):
                assert part.material in paints
                assert CLASSES[part.label] == ("chair" if (kind, name) == ("background", "1") else kind)
                np.testing.assert_allclose(np.linalg.norm(part.normals_F33, axis=2), 1, atol=1e-5)


def test_class_ids_are_those_that_the_workload_learns():
    assert tuple(PRIORS) == CLASSES


# --- triangles and paint ----------------------------------------------------------------------------


def test_a_ball_is_round_and_a_box_is_not():
    ball = solids.ball((0.5, 0.5, 0.5), "white")
    radial = ball.corners_F33 / np.linalg.norm(ball.corners_F33, axis=2, keepdims=True)
    assert (ball.normals_F33 * radial).sum(2).min() > 0.995
    box = solids.solid(*_cube(), "white")
    assert np.isclose(np.abs(box.normals_F33).max(2), 1, atol=1e-5).all()


def _cube():
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    square = np.array([[0, 1, 3], [0, 3, 2]])
    far = np.array([[4, 7, 5], [4, 6, 7]])
    sides = np.array([[0, 5, 1], [0, 4, 5], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 7, 3], [1, 5, 7]])
    return corners, np.concatenate([square, far, sides])


def test_texture_turns_with_what_it_is_on():
    box = solids.box((1, 2, 3), "wood")
    turned = box.moved((4, 5, 6), 0.7)
    np.testing.assert_array_equal(turned.surface_F32, box.surface_F32)
    assert not np.allclose(turned.laid_in_place().surface_F32, box.surface_F32)


def test_near_paint_shows_its_texels_and_far_paint_their_mean():
    pattern = rng(1).random((texture.TEXELS, texture.TEXELS, 3), dtype=np.float32)
    paints = texture.Paints([texture.Paint(pattern * 0), texture.Paint(pattern, tile_m=2.0)])
    at = np.array([[0.01, -0.99], [0.01, 0.4]], np.float32)  # metres; the middle of the pattern is at 0
    near = paints.sample(np.array([1, 1]), at, np.array([1e-3, 1e-3]))
    texels = np.floor((at / 2 + 0.5) * texture.TEXELS).astype(int)
    np.testing.assert_array_equal(near.T, pattern[texels[0], texels[1]])
    far = paints.sample(np.array([1, 0]), at, np.array([50.0, 50.0]))
    np.testing.assert_allclose(far[:, 0], pattern.mean((0, 1)), rtol=1e-4)
    assert (far[:, 1] == 0).all()


def test_paint_repeats_without_a_seam():
    waves = texture.noise(rng(1), 3)
    steps = np.abs(np.diff(waves, axis=0)).max()
    assert np.abs(waves[0] - waves[-1]).max() <= steps * 1.01


# --- rays and views ---------------------------------------------------------------------------------


def test_a_ray_meets_what_is_there_at_its_distance():
    ball, wall = solids.ball((0.5,) * 3, "a", 5), solids.box((0.1, 9, 9), "b", 3, at=(4.05, 0, 0))
    surfaces = Surfaces([ball.moved((2, 0, 0)), wall], ("a", "b"))
    origins = np.zeros((3, 4), np.float32)
    directions = np.array([[1, 0.1, 0], [1, 0, 0.4], [0.5, 0, 0.2], [-1, 0, 0]], np.float32).T
    hits = surfaces.cast(origins, directions)
    assert hits.hit_N.tolist() == [True, True, True, False]
    assert hits.label_N[:3].tolist() == [5, 3, 3]
    np.testing.assert_allclose(hits.distance_N[1:], [4, 8, np.inf], rtol=1e-5)
    root = 2 - np.sqrt(4 - 1.01 * 3.75)
    assert hits.distance_N[0] == pytest.approx(root / 1.01, abs=0.01)
    np.testing.assert_allclose(hits.normal_3N[:, 1], [-1, 0, 0], atol=1e-6)
    assert surfaces.blocked(origins, directions, 3.0).tolist() == [True, False, False, False]


def test_a_camera_has_its_target_in_the_middle_and_no_roll():
    position, target = np.array([1.0, 2.0, 1.5]), np.array([3.0, 1.0, 0.7])
    camera = look_at(position, target, np.radians(60))
    middle = camera.rays(3)[:, 4]
    np.testing.assert_allclose(middle, (target - position) / np.linalg.norm(target - position), atol=1e-6)
    assert camera.axes_33[0, 2] == 0
    np.testing.assert_allclose(camera.axes_33 @ camera.axes_33.T, np.eye(3), atol=1e-6)
    assert camera.axes_33[1, 2] < 0  # down is down
    assert camera.focal_px(100) == pytest.approx(50 / np.tan(np.radians(30)))


def test_views_are_taken_at_eye_height_inside_a_room(building):
    for camera, _ in aimed(building, 12):
        x, y, z = camera.position_3
        assert any(r.x0 < x < r.x1 and r.y0 < y < r.y1 for r in building.plan.rooms)
        assert HEIGHT_M[0] <= z <= HEIGHT_M[1]


def test_normals_are_unit_and_face_the_camera_and_holes_have_none(frames):
    across = (np.arange(SIZE) + 0.5 - SIZE / 2)[None, :]
    for frame in frames:
        hit = np.isfinite(frame.depth_HW)
        rays = np.stack(np.broadcast_arrays(across, across.T, frame.focal_px), -1)
        np.testing.assert_allclose(np.linalg.norm(frame.normal_HW3[hit], axis=1), 1, atol=1e-4)
        assert ((frame.normal_HW3 * rays).sum(-1)[hit] < 1e-3 * frame.focal_px).all()
        assert not frame.normal_HW3[~hit].any()
        assert (frame.label_HW[~hit] == 1).all()
        assert frame.label_HW.min() >= 1
        assert hit.mean() > 0.5
        assert frame.depth_HW.min() > 0.1


def test_points_of_floors_seen_by_depth_lie_on_the_floor(building):
    (camera, own), *_ = aimed(building, 1)
    (frame,) = render(building, [(camera, own)], SIZE)
    rays = camera.rays(SIZE).reshape(3, SIZE, SIZE)
    points = camera.position_3[:, None, None] + rays * frame.depth_HW
    up = np.einsum("hwc,ck->khw", frame.normal_HW3, camera.axes_33)[2] > 0.999
    low = up & (points[2] < 0.005)
    assert low.any()
    np.testing.assert_allclose(points[2][low], 0, atol=0.01)


def test_a_view_does_not_depend_on_those_rendered_with_it(building, frames):
    again = list(render(building, aimed(building, 24)[20:22], SIZE))
    for frame, other in zip(again, frames[20:22], strict=True):
        np.testing.assert_array_equal(frame.rgb_HW3, other.rgb_HW3)
        np.testing.assert_array_equal(frame.depth_HW, other.depth_HW)


def test_a_view_of_more_rays_than_are_cast_at_once_has_no_seam(building):
    (camera, own), *_ = aimed(building, 1)
    (frame,) = render(building, [(camera, own)], 192)
    rays = camera.rays(192)
    assert rays.shape[1] > 2 * TOGETHER
    whole = building.surfaces.cast(np.repeat(camera.position_3[:, None], rays.shape[1], 1), rays)
    np.testing.assert_array_equal(frame.depth_HW.ravel(), whole.distance_N)


def test_pictures_use_their_range_and_differ_between_buildings(frames):
    other = list(render(second := draw_building(rng(6)), aimed(second, 24), SIZE))
    for frame in (*frames, *other):
        assert np.quantile(frame.rgb_HW3, 0.9) > 130
        assert frame.rgb_HW3.std() > 4
    means = [np.mean([frame.rgb_HW3.mean((0, 1)) for frame in each], 0) for each in (frames, other)]
    assert np.abs(means[0] - means[1]).max() > 3


# --- sets -------------------------------------------------------------------------------------------


def test_the_shipped_set_is_the_one_whose_hash_is_written_here():
    digest = hashlib.sha256()
    for client in make.SIZES["demo"].clients:
        digest.update(archive.unpack(archive.SHIPPED, client, 32).tobytes())
    assert digest.hexdigest() == SHIPPED_SHA256


def test_the_shipped_set_is_what_the_renderer_makes():
    """Its first building, rendered again; instruction sets round differently, so a few pixels may change."""
    again, shipped = make.views(make.SIZES["demo"], 1, "1"), archive.unpack(archive.SHIPPED, "1", 32)
    for name in LABELS:
        assert (again[name] == shipped[name]).mean() > 0.98, name


@pytest.mark.slow
def test_a_set_is_the_same_whatever_the_number_of_processes_and_is_made_once(tmp_path):
    heard = []
    one = make.make("tiny", 3, tmp_path / "a", processes=1, progress=lambda *at: heard.append(at))
    two = make.make("tiny", 3, tmp_path / "b", processes=2, progress=lambda *at: heard.append(at))
    assert archive.verify(one) == archive.verify(two)
    assert archive.open_page(one).unseen == ("5",)
    assert heard == [(n, 5) for n in range(6)] * 2
    assert make.make("tiny", 3, tmp_path / "a", processes=1, progress=lambda *at: heard.append(at)) == one
    assert len(heard) == 12
    assert [path.name for path in (tmp_path / "a").iterdir()] == [one.name]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_set_that_is_cut_short_is_made_the_next_time_and_nothing_goes_on_in_the_dark(tmp_path, how):
    command = [sys.executable, "-m", "mas_edge.orchestrator.cli", "data", "make", "--preset", "tiny"]
    command += ["--cache", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while not list(tmp_path.glob(".*/*.npy")):
            time.sleep(0.02)
        workers = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(how)
        first.communicate(timeout=20)
    assert not psutil.wait_procs(workers, timeout=5)[1]
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=100)[0] for process in together}
    assert [process.returncode for process in together] == [0, 0]
    assert said == {f"{make.place(tmp_path, 'tiny', 1)}\n"}
    assert list(tmp_path.iterdir()) == [make.place(tmp_path, "tiny", 1)]
    archive.verify(make.place(tmp_path, "tiny", 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--preset", "huge"), "'huge'; there are tiny, demo, bench"),
        (("--seed", "x"), "--seed: 'x': use a whole number, 0 or more"),
        (("--processes", "0"), "--processes: '0': use a whole number, 1 or more"),
        (("--cache", "/dev/null/sets"), "/dev/null/sets: Not a directory; name another folder"),
    ],
)
def test_a_wrong_option_is_refused_with_what_to_give(capsys, wrong, said):
    try:
        code = main(["data", "make", "--preset", "tiny", *wrong])
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_sets_are_kept_where_caches_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make.place(tmp_path / "mas-edge", "tiny", 1).mkdir(parents=True)
    assert main(["data", "make", "--preset", "tiny"]) == 2
    assert f"deleting {tmp_path / 'mas-edge'}" in capsys.readouterr().err


def test_version_preset_and_seed_name_a_set(tmp_path):
    places = {make.place(tmp_path, preset, seed) for preset in make.SIZES for seed in (1, 2)}
    assert len(places) == 6
    with pytest.raises(UnknownChoice, match="'huge'; there are tiny, demo, bench"):
        make.place(tmp_path, "huge", 1)


def test_a_damaged_set_in_the_cache_is_refused_with_what_to_delete(tmp_path):
    folder = make.place(tmp_path, "tiny", 1)
    folder.mkdir(parents=True)
    with pytest.raises(DataRefused, match=rf"set\.json.*deleting {folder}"):
        make.make("tiny", 1, tmp_path, processes=1, progress=print)


def test_without_a_ray_engine_there_is_one_line_with_the_remedy(tmp_path):
    program = """
import sys
sys.modules["embreex"] = None  # importing it fails now
from mas_edge.orchestrator.cli import main
sys.exit(main(["data", "make", "--preset", "tiny", "--cache", sys.argv[1]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs embreex" in done.stderr
    assert "pip install 'mas-edge[buildings]'" in done.stderr
    assert not list(tmp_path.iterdir())
