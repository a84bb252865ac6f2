"""CUDA kernels asked for where no GPU is: what each launch is given."""

import mlx.core as mx

from runtime import nvrtc


def watched(monkeypatch, look):
    """Instead of a launch: look(name, source, scalars, grid, threadgroup), zeros as outputs.

    Arrays and scalars must be those of the kernel's signature, in its order.
    """

    def run(name, compiled_source, inputs, scalars, output_shapes, output_dtypes, grid, threadgroup,
            ensure_row_contiguous, **_):  # fmt: skip
        assert ensure_row_contiguous
        text = compiled_source.decode()
        head = text.split(f"{name}(")[1].split(")")[0].split(", ")
        given = [f"const {nvrtc.TYPES[a.dtype]}*" for a in inputs] + [f"{nvrtc.TYPES[d]}*" for d in output_dtypes]
        assert [part.rsplit(" ", 1)[0] for part in head] == given + [type(value).__name__ for value in scalars]
        look(name, text, scalars, grid, threadgroup)
        return [mx.zeros(shape, kind) for shape, kind in zip(output_shapes, output_dtypes, strict=True)]

    monkeypatch.setattr(nvrtc, "library", object)
    monkeypatch.setattr(nvrtc, "architecture", lambda: "sm_90a")
    monkeypatch.setattr(nvrtc, "compiled", lambda source, target: source.encode())
    monkeypatch.setattr(mx.fast, "precompiled_cuda_kernel", run)
