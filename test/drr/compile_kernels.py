"""Compiles every form of every CUDA kernel for compute capability 9.0; needs Triton, and no GPU."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sphere_reg_ros.drr.cuda.adjoint_kernels import adjoint_kernel
from sphere_reg_ros.drr.cuda.image_kernels import render_kernel

SCENE = dict.fromkeys(("poses", "grid", "box", "views", "centre", "scale"), "*fp64")
IMAGES = dict.fromkeys(
    ("cotangent", "image", "jacobian", "products", "image_gradient", "jacobian_gradient", "gradient"), "*fp32"
)


def compiled(kernel: Any, pointers: dict[str, str], constants: dict[str, Any]) -> Any:
    """A kernel, its pointers of given types and everything else 32-bit integers."""
    known = SCENE | IMAGES | pointers
    signature = {name: "constexpr" if name in constants else known.get(name, "i32") for name in kernel.arg_names}
    return triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})


def main() -> None:
    """Count what has machine code."""
    small, large = {"TILE_W": 4, "TILE_H": 4, "SEGMENTS": 8}, {"TILE_W": 8, "TILE_H": 16, "SEGMENTS": 1}
    kernels = [
        compiled(render_kernel, {"field": field}, {"MODE": mode, **small})
        for field in ("*fp32", "*fp16", "*bf16")
        for mode in range(3)
    ]
    kernels += [
        compiled(adjoint_kernel, {"gradient": "*i64" if exact else "*fp32"}, {"JACOBIAN": jacobian, "EXACT": exact, **large})
        for jacobian in (False, True)
        for exact in (False, True)
    ]
    print("compiled", sum("cubin" in kernel.asm for kernel in kernels))


if __name__ == "__main__":
    main()
