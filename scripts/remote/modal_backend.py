"""Modal behind the interface of backend.py: the one file that imports it, and it decides nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from runtime.errors import UsageError

try:
    import modal
    from modal.exception import AuthError, Error, FunctionTimeoutError, InputCancellation
except ImportError as error:
    raise UsageError("Modal's package is not installed here: pip install -e '.[modal]'.") from error

from scripts.remote.backend import Call, Entry
from scripts.remote.job import execute
from scripts.remote.spec import ROOT, UNSENT, place_of


class ModalVolume:
    """A named volume, from outside of containers."""

    def __init__(self, name: str):
        self._volume = modal.Volume.from_name(name, create_if_missing=True, version=2)

    def entries(self, path: str) -> list[Entry]:
        """Every file below a folder, or the file itself; [] where there is none."""
        with _plainly():
            try:
                found = self._volume.listdir(f"/{path}", recursive=True)
            except (FileNotFoundError, modal.exception.NotFoundError):
                return []
        files = [entry for entry in found if entry.type == modal.types.FileEntryType.FILE]
        return [Entry(entry.path.lstrip("/"), entry.size, float(entry.mtime)) for entry in files]

    def read(self, path: str) -> Iterator[bytes]:
        """A file's contents; raises FileNotFoundError."""
        with _plainly():
            yield from self._volume.read_file(f"/{path}")

    def upload(self, files: dict[str, Path | bytes]) -> None:
        """Writes files, given by their path on the volume; all of them are there when this returns."""
        with _plainly():
            self._volume.hydrate()
            with self._volume.batch_upload(force=True) as batch:
                for path, given in files.items():
                    batch.put_file(BytesIO(given) if isinstance(given, bytes) else given, f"/{path}")


class ModalCalls:
    """Calls of functions that are made from a specification."""

    def spawn(self, spec: dict[str, Any], detach: bool, told: Callable[[Call], None]) -> dict[str, Any] | None:
        """Sends the call; `told(call)` runs as soon as it has an id. Its result, or None if detach or Ctrl-C."""
        app, function = build(spec)
        # detached in either case, so that the run outlives this process; an app of its own, so that it keeps its source
        with _plainly(), modal.enable_output(), app.run(detach=True):
            call = function.spawn(**spec["arguments"])
            told(Call(call.object_id, app.get_dashboard_url()))
            return None if detach else result_of(call)

    def cancel(self, call: str) -> None:
        """Stops a call and its retries; the function saves first."""
        with _plainly():
            modal.FunctionCall.from_id(call).cancel()

    def logs(self, call: str) -> Iterator[str]:
        """What the call prints from now on, until it ends."""
        with _plainly():
            for entry in modal.FunctionCall.from_id(call).logs.stream():
                yield entry.message


def result_of(call: modal.FunctionCall) -> dict[str, Any] | None:
    """Waits for a call's result; None after Ctrl-C. Modal raises here what ended the last attempt there."""
    try:
        return call.get()
    except KeyboardInterrupt:  # further out, `app.run` would swallow it
        return None
    except InputCancellation:
        return {"state": "cancelled", "message": ""}
    except FunctionTimeoutError:
        return {"state": "crashed", "message": "the last attempt ran out of time; go on with resume=true."}
    except Error:
        raise
    except Exception as error:  # the function's own
        return {"state": "crashed", "message": f"{type(error).__name__}: {error}"}


class Mounted:
    """A volume in a container; outside of one (`.local()`) the folder is a plain one and nothing is to be done."""

    def __init__(self, name: str):
        self.call = modal.current_function_call_id() or "local"
        self._volume = None if modal.is_local() else modal.Volume.from_name(name)

    def reload(self) -> None:
        """Shows what others have committed."""
        if self._volume is not None:
            self._volume.reload()

    def commit(self) -> None:
        """Makes what was written last."""
        if self._volume is None:
            return
        try:
            self._volume.commit()
        except RuntimeError as error:  # after a commit Modal reloads, which fails while the run reads its data
            if "open files" not in str(error):
                raise


class Modal:
    """Modal as a provider."""

    calls = ModalCalls()

    def volume(self, name: str) -> ModalVolume:
        """The volume of a name, made where there is none."""
        return ModalVolume(name)


def build(spec: dict[str, Any]) -> tuple[modal.App, modal.Function]:
    """The app and function of a specification; needs no token."""
    told, source = spec["image"], spec["source"]
    image = modal.Image.debian_slim(python_version=told["python_version"]).apt_install(*told["apt_install"])
    image = image.add_local_file(ROOT / told["constraints"], "/constraints.txt", copy=True)
    image = image.uv_pip_install(*told["uv_pip_install"], extra_options="--constraint /constraints.txt")
    image = image.env(told["env"])
    for name in source["files"]:
        image = image.add_local_file(ROOT / name, f"{source['to']}/{name}")
    for name in source["folders"]:
        image = image.add_local_dir(ROOT / name, f"{source['to']}/{name}", ignore=[f"**/{name}" for name in UNSENT])
    for name in spec["plugins"]:
        if (place := place_of(name)).is_dir():
            image = image.add_local_dir(place, f"{source['to']}/{name}", ignore=[f"**/{name}" for name in UNSENT])
        else:
            image = image.add_local_file(place, f"{source['to']}/{name}.py")
    function = dict(spec["function"])
    retries = modal.Retries(**function.pop("retries"))
    volumes: Any = {path: modal.Volume.from_name(**given) for path, given in spec["volumes"].items()}
    secrets = [modal.Secret.from_name(name) for name in spec["secrets"]]
    app = modal.App(spec["app"], include_source=False)
    made = app.function(image=image, retries=retries, volumes=volumes, secrets=secrets, **function)(execute)
    return app, made


@contextmanager
def _plainly():
    """Modal's errors as one sentence each."""
    try:
        yield
    except AuthError as error:
        raise UsageError(
            "Modal knows no token here: run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET."
        ) from error
    except (Error, ConnectionError) as error:
        raise UsageError(f"Modal says: {' '.join(str(error).split())}") from error
