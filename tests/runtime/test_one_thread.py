"""One thread within the block, as many as before after it, and no error where NumPy has another BLAS."""

import pytest

from runtime import one_thread


@pytest.fixture
def counted(monkeypatch):
    state = {"count": 5}
    pair = (lambda: state["count"], lambda count: state.update(count=count))
    monkeypatch.setattr(one_thread, "openblas", lambda: pair)
    return state


def test_within_it_there_is_one_and_afterwards_as_many_as_before(counted):
    with one_thread.one_thread():
        assert counted["count"] == 1
        with one_thread.one_thread():
            pass
        assert counted["count"] == 1
    assert counted["count"] == 5
    with pytest.raises(ZeroDivisionError), one_thread.one_thread():
        _ = 1 / 0
    assert counted["count"] == 5


def test_it_is_a_decorator(counted):
    @one_thread.one_thread()
    def count() -> int:
        return counted["count"]

    assert (count(), count(), counted["count"]) == (1, 1, 5)


def test_another_blas_is_left_alone(monkeypatch):
    monkeypatch.setattr(one_thread, "openblas", lambda: None)
    with one_thread.one_thread():
        pass


def test_the_openblas_of_numpys_wheel_does_as_told():
    found = one_thread.openblas()
    if found is None:
        pytest.skip("NumPy has another BLAS here")
    before = found[0]()
    with one_thread.one_thread():
        assert found[0]() == 1
    assert found[0]() == before >= 1
