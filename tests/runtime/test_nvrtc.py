"""The cache of compiled CUDA sources, with a compiler that counts its calls; the true one where it is loaded."""

import pytest

from runtime import nvrtc


class Library:
    def nvrtcVersion(self, major, minor):
        major._obj.value, minor._obj.value = 13, 0


@pytest.fixture
def calls(monkeypatch, tmp_path):
    made = []

    def translate(_library, source, target):
        made.append((source, target))
        return f"code of {source} for {target}".encode()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nvrtc, "library", Library)
    monkeypatch.setattr(nvrtc, "translate", translate)
    nvrtc.compiled.cache_clear()
    yield made
    nvrtc.compiled.cache_clear()


def again(*arguments):
    """What the next process would get."""
    nvrtc.compiled.cache_clear()
    return nvrtc.compiled(*arguments)


def test_each_source_and_target_is_compiled_once(calls, tmp_path):
    assert again("f", "sm_90a") == again("f", "sm_90a") == b"code of f for sm_90a"
    assert again("f", "sm_100a") == b"code of f for sm_100a" and again("g", "sm_90a") == b"code of g for sm_90a"
    assert calls == [("f", "sm_90a"), ("f", "sm_100a"), ("g", "sm_90a")]
    assert len(list(tmp_path.rglob("*"))) == 5  # two folders, three files: nothing temporary is left


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 60])
def test_a_damaged_file_is_compiled_again(calls, tmp_path, damage):
    wanted = again("f", "sm_90a")
    (path,) = tmp_path.rglob("*.cubin")
    path.write_bytes(damage)
    assert again("f", "sm_90a") == again("f", "sm_90a") == wanted and len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_else(calls, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert again("f", "sm_90a") == again("f", "sm_90a") and len(calls) == 2


def test_without_nvrtc_it_says_so(monkeypatch, calls):
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    with pytest.raises(RuntimeError, match="NVRTC is not loaded"):
        nvrtc.compiled("f", "sm_90a")


@pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC isn't loaded: this MLX isn't built for CUDA")
def test_the_compiler_itself():
    code = nvrtc.translate(nvrtc.library(), 'extern "C" __global__ void f(int* x) { *x = 1; }', "sm_90a")
    assert code[:4] == b"\x7fELF"
    with pytest.raises(RuntimeError, match="identifier .* undefined"):
        nvrtc.translate(nvrtc.library(), "__global__ void f() { y = 1; }", "sm_90a")
