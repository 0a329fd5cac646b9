"""The control socket: who may speak, what is refused, and that nobody who misbehaves disturbs the others."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from mas_edge.orchestrator.launching import orders
from mas_edge.orchestrator.launching.control import MOST_CLIENTS, Control, SocketRefused
from mas_edge.orchestrator.launching.remote import (
    PLACE,
    NobodyThere,
    Orchestrator,
    OrderFailed,
    OrderRefused,
    socket_path,
)


def look():
    def answer(question):
        return orders.Told(job=question.job, about="", lines=(), last=question.after, over=True)

    return nullcontext(answer)


@contextmanager
def deciding(control):
    """A loop that stops whatever it is told to, in a thread."""
    done = threading.Event()

    def loop():
        while not done.is_set():
            for each in control.orders():
                each.answer.set_result(orders.Done(job=each.order.name, text="stopped"))
            time.sleep(0.005)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "control.sock"
    with Control(path, look) as control, deciding(control):
        yield path


def raw(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5.0)
    connection.connect(str(path))
    return closing(connection)


def answer_to(path, data: bytes) -> bytes:
    with raw(path) as connection:
        connection.sendall(data)
        return connection.makefile("rb").readline()


def test_an_order_is_answered_by_the_loop_and_a_question_at_once(place):
    with Orchestrator(place) as orchestrator:
        assert orchestrator.ask(orders.Stop(name="j"), orders.Done).job == "j"
        assert orchestrator.ask(orders.Tell(job="j", after=7), orders.Told).last == 7


def test_a_question_waits_for_no_loop(tmp_path):
    with Control(tmp_path / "s", look), Orchestrator(tmp_path / "s") as orchestrator:
        assert orchestrator.ask(orders.Tell(job="j"), orders.Told).over


def test_only_its_user_and_group_may_open_it(place):
    assert stat.S_IMODE(place.stat().st_mode) == 0o660


def test_many_clients_are_served_at_the_same_time(place):
    with ExitStack() as stack:
        clients = [stack.enter_context(Orchestrator(place)) for _ in range(20)]
        for n, client in enumerate(clients):
            assert client.ask(orders.Stop(name=f"j{n}"), orders.Done).job == f"j{n}"


def test_one_client_too_many_is_hung_up_on_and_there_is_room_when_others_go(place):
    with ExitStack() as stack:
        for _ in range(MOST_CLIENTS):
            stack.enter_context(Orchestrator(place)).ask(orders.Tell(job="j"), orders.Told)
        with pytest.raises(NobodyThere, match=r"hung up|went away"), Orchestrator(place) as more:
            more.ask(orders.Tell(job="j"), orders.Told)
    for _ in range(100):
        try:
            with Orchestrator(place) as again:
                assert again.ask(orders.Tell(job="j"), orders.Told).over
            break
        except NobodyThere:
            time.sleep(0.02)
    else:
        pytest.fail("the places of clients that went are not free again")


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"hello\n",
        b'{"kind": "reboot"}\n',
        b'{"kind": "stop"}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_request_is_refused_in_a_line_and_harms_nobody(place, data):
    assert b'"kind":"refused"' in answer_to(place, data)
    with Orchestrator(place) as orchestrator:
        assert orchestrator.ask(orders.Stop(name="j"), orders.Done).job == "j"


def test_a_request_that_is_too_long_is_refused_unread(place):
    with raw(place) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(b"x" * (16 * orders.LONGEST_BYTES))
    assert b'"kind":"told"' in answer_to(place, b'{"kind": "tell", "job": "j"}\n')


@pytest.mark.parametrize("data", [b"", b'{"kind": "sto', b'{"kind": "stop", "name": "j"}\n'])
def test_a_client_that_goes_in_the_middle_harms_nobody(place, data):
    with raw(place) as connection:
        connection.sendall(data)
    with Orchestrator(place) as orchestrator:
        assert orchestrator.ask(orders.Stop(name="k"), orders.Done).job == "k"


def test_a_refusal_is_an_error_with_the_orchestrators_words_and_its_exit_code(tmp_path):
    texts = {"a": orders.Refused(text="no such job"), "b": orders.Refused(text="disk full", code=1)}
    path = tmp_path / "s"
    with (
        Control(path, lambda: nullcontext(lambda question: texts[question.job])),
        Orchestrator(path) as orchestrator,
    ):
        with pytest.raises(OrderRefused, match="no such job"):
            orchestrator.ask(orders.Tell(job="a"), orders.Told)
        with pytest.raises(OrderFailed, match="disk full"):
            orchestrator.ask(orders.Tell(job="b"), orders.Told)


def test_an_order_that_nobody_carried_out_is_answered_when_the_orchestrator_ends(tmp_path):
    answers = []
    with Control(tmp_path / "s", look) as control:

        def ask():
            with Orchestrator(tmp_path / "s") as orchestrator, pytest.raises(OrderFailed, match="ending"):
                orchestrator.ask(orders.Stop(name="j"), orders.Done)
            answers.append("ended")

        client = threading.Thread(target=ask)
        client.start()
        waiting = []
        while not waiting:
            waiting = list(control.orders())
            time.sleep(0.005)
        for each in waiting:  # as if the loop ended between taking and answering
            control._queue.put(each)
    client.join(5.0)
    assert answers == ["ended"]


# --- the place ---------------------------------------------------------------------------------------


def test_nobody_there_is_said_in_a_line_with_what_to_do(tmp_path):
    for path in (tmp_path / "gone.sock", tmp_path / "nowhere" / "gone.sock"):
        with pytest.raises(NobodyThere, match="start mas serve, or name its socket with --socket"):
            Orchestrator(path)


def test_a_socket_that_a_killed_orchestrator_left_is_replaced(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NobodyThere):
        Orchestrator(path)
    with Control(path, look), Orchestrator(path) as orchestrator:
        assert orchestrator.ask(orders.Tell(job="j"), orders.Told).over
    assert not path.exists()


def test_a_socket_on_which_somebody_listens_is_left_alone(place):
    with pytest.raises(SocketRefused, match="another orchestrator listens there"):
        Control(place, look)
    with Orchestrator(place) as orchestrator:
        assert orchestrator.ask(orders.Stop(name="j"), orders.Done).job == "j"


def test_a_file_in_its_place_is_left_alone(tmp_path):
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(SocketRefused, match="is no socket"):
        Control(path, look)
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SocketRefused, match=r"no control socket can be made at .*nowhere/s: No such file"):
        Control(tmp_path / "nowhere" / "s", look)


def test_a_path_of_any_length_will_do(tmp_path):
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    with Control(folder / "s", look), Orchestrator(folder / "s") as orchestrator:
        assert orchestrator.ask(orders.Tell(job="j"), orders.Told).over


def test_which_socket_is_meant_is_said_by_the_command_line_then_the_variable_then_the_service():
    told = {"MAS_SOCKET": "/tmp/mine"}
    assert socket_path(Path("/tmp/named"), told) == Path("/tmp/named")
    assert socket_path(None, told) == Path("/tmp/mine")
    assert socket_path(None, {}) == PLACE
    unit = Path(__file__).parents[2] / "deploy/mas-orchestrator.service"
    assert f"RuntimeDirectory={PLACE.parent.name}\n" in unit.read_text()


def test_who_may_not_open_it_is_told_so(place):
    if os.geteuid():
        pytest.skip("needs root, to be somebody else for a moment")
    os.chmod(place.parent, 0o755)  # noqa: PTH101
    for folder in [place.parent, *place.parent.parents]:
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"{folder} is closed to others")
    os.seteuid(65534)
    try:
        with pytest.raises(NobodyThere, match="be in the group"):
            Orchestrator(place)
    finally:
        os.seteuid(0)
