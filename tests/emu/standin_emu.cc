/* The stand-in CUDA runtime finds the emulated kernels that are linked into it. */
#include "tests/emu/emu_reg.h"
#include "tests/emu/standin_private.h"

static standin::Kernel find_kernel(const char *mangled)
{
    emu::Packer packer = emu::find(mangled);

    if (packer == nullptr)
        return nullptr;
    return [packer](void **args) -> standin::Launch {
        emu::Call bound = packer(args);

        return [bound](dim3 grid, dim3 block, size_t shared_bytes) {
            return emu::launch(grid, block, shared_bytes, bound);
        };
    };
}

__attribute__((constructor)) static void join_kernels()
{
    standin::find_emulated = find_kernel;
}
