// What the kernels that compute tiles share.
#pragma once
#include "kernel.hpp"
#include "pool.hpp"

#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

namespace thinned {
namespace THINNED_LEVEL {
namespace {

template <class T>
struct Room {  // for some numbers, at the beginning of a cache line
    explicit Room(int64_t n) : block(n * sizeof(T)) {}
    operator T *() const { return static_cast<T *>(block.data()); }
    Block block;
};

}  // namespace
}  // namespace THINNED_LEVEL
}  // namespace thinned
