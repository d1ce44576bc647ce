/* All kernels and their launchers, for the CPU: compiled with CUDA_EMU. */
#include "kernels/cuda/bn_backward.cu"
#include "kernels/cuda/bn_forward.cu"
#include "kernels/cuda/bn_moments.cu"
#include "kernels/cuda/flat.cu"
#include "kernels/cuda/input.cu"
#include "kernels/cuda/loss.cu"
#include "kernels/cuda/pool.cu"
#include "kernels/cuda/reduce.cu"
