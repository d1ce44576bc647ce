/* Kernels by name, and running them on a CPU: what a stand-in CUDA runtime needs.
 *
 * The .cu files compiled with g++ -DCUDA_EMU (tests/emu/kernels.cc) register every __global__
 * function, template instances each, in one table. The runtime that an nvcc-built program talks to
 * learns mangled names from __cudaRegisterFunction, asks find() for the CPU version, binds the
 * arguments of a launch while they are there, and runs the launch later.
 *
 * Names are compared demangled and without argument types ("k_flat<Cast<__half>>"): kernels are
 * neither overloaded nor in namespaces. So nothing has to be exported, and the objects may be
 * linked with -fvisibility=hidden into the stand-in itself, beside a program that defines the same
 * symbols. One thread at a time may launch. */
#ifndef APD_TESTS_EMU_REG_H
#define APD_TESTS_EMU_REG_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <tuple>
#include <typeinfo>
#include <utility>

namespace emu
{

/* The kernel with its arguments, as one CUDA thread runs it. */
typedef std::function<void()> Call;
/* Copies the arguments that cudaLaunchKernel's `args` points to. */
typedef Call (*Packer)(void **args);

/* NULL: no such kernel. */
Packer find(const char *mangled);

/* Runs all blocks to their end. What CUDA would refuse is cudaErrorInvalidConfiguration; what CUDA
 * would let go wrong (divergent barriers and the like) ends the process with a message. */
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, const Call &call);

/* Order of the blocks of a launch and of the threads of a block. Before the first call the
 * environment's EMU_ORDER (forward, reverse, random) says it. */
enum Order { FORWARD, REVERSE, RANDOM, ORDERS };
void set_order(Order order);

/* type: typeid().name() of a type whose first template argument is the kernel. */
void add_kernel(const char *type, Packer packer);

template <auto Kernel, class Signature> struct Registration;

template <auto Kernel, class... P> struct Registration<Kernel, void (*)(P...)> {
    Registration()
    {
        add_kernel(typeid(Registration).name(), pack);
    }

    static Call pack(void **args)
    {
        return bind(args, std::index_sequence_for<P...>());
    }

    template <size_t... I> static Call bind(void **args, std::index_sequence<I...>)
    {
        std::tuple<P...> values(*static_cast<P *>(args[I])...);

        return [values] { std::apply(Kernel, values); };
    }
};

} // namespace emu

#define EMU_JOIN_(a, b) a##b
#define EMU_JOIN(a, b)  EMU_JOIN_(a, b)
/* At file scope, after the kernel. EMU_KERNEL(k_flat<Sgd>) registers one instance. */
#define EMU_KERNEL(...)                                                                            \
    static const emu::Registration<&__VA_ARGS__, decltype(&__VA_ARGS__)> EMU_JOIN(                 \
        emu_registration_, __COUNTER__);

#endif
