// The Python module thinned.kernels._cpu: picks the level, splits the work over threads. Arrays come as
// addresses of contiguous memory: thinned.kernels, the only caller, sees to it that they fit.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernel.hpp"
#include "pool.hpp"

namespace nb = nanobind;
using namespace thinned;

namespace {

using Address = uintptr_t;

std::vector<const Level *> available() {
    std::vector<const Level *> found{&plain::table};
#ifdef THINNED_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::table);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::table);
#endif
    return found;
}

const Level &pick(const std::string &name) {
    static const std::vector<const Level *> levels = available();
    if (name.empty()) return *levels.back();
    for (const Level *level : levels)
        if (name == level->name) return *level;
    throw std::invalid_argument("level must be one of levels(), got '" + name + "'");
}

constexpr int64_t SIZES[] = {4, 8, 2, 2};  // bytes, by DType

// Runs work(begin, end) over [0, n) in equal parts of whole blocks. Threads are started for the call and
// joined, so nothing outlives it and a fork is safe; below GRAIN units a thread costs more than it saves.
constexpr int64_t GRAIN = 1 << 19, ALIGN = 64 * 128;

template <class Work>
void split(int64_t n, int threads, Work work) {
    const int64_t parts = std::clamp<int64_t>(n / GRAIN, 1, std::max(threads, 1));
    const int64_t size = ((n + parts - 1) / parts + ALIGN - 1) / ALIGN * ALIGN;
    std::vector<std::thread> crew;
    for (int64_t begin = size; begin < n; begin += size) {
        const int64_t end = std::min(begin + size, n);
        try {
            crew.emplace_back([=] { work(begin, end); });
        } catch (const std::system_error &) {  // no thread to be had: do it here
            work(begin, end);
        }
    }
    work(0, std::min(size, n));
    for (std::thread &thread : crew) thread.join();
}

void mask(Address out, int64_t n, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, int threads, const std::string &level) {
    const Level &kernels = pick(level);
    uint8_t *to = reinterpret_cast<uint8_t *>(out);
    const Draw draw{k0, k1, limit};
    nb::gil_scoped_release release;
    split(n, threads, [=, &kernels](int64_t begin, int64_t end) { kernels.mask(to + begin, start + begin, end - begin, draw); });
}

void dropout(int dtype, Address x, Address out, int64_t n, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, double scale,
             int threads, const std::string &level) {
    const Level &kernels = pick(level);
    const char *from = reinterpret_cast<const char *>(x);
    char *to = reinterpret_cast<char *>(out);
    const Draw draw{k0, k1, limit};
    const int64_t size = SIZES[dtype];
    nb::gil_scoped_release release;
    split(n, threads, [=, &kernels](int64_t begin, int64_t end) {
        kernels.dropout(DType(dtype), from + begin * size, to + begin * size, start + begin, end - begin, draw, scale);
    });
}

int block_buffer(PyObject *self, Py_buffer *view, int flags) {
    Block *block = nb::inst_ptr<Block>(nb::handle(self));
    return PyBuffer_FillInfo(view, self, block->data(), (Py_ssize_t)block->size(), 0, flags);
}

PyType_Slot block_slots[] = {{Py_bf_getbuffer, (void *)block_buffer}, {0, nullptr}};

}  // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "Native CPU kernels; thinned.kernels calls them.";
    m.def("levels", [] {
        nb::list names;
        for (const Level *level : available()) names.append(level->name);
        return names;
    });
    using namespace nb::literals;
    m.def("mask", &mask, "out"_a, "n"_a, "start"_a, "k0"_a, "k1"_a, "limit"_a, "threads"_a = 1, "level"_a = "");
    m.def("dropout", &dropout, "dtype"_a, "x"_a, "out"_a, "n"_a, "start"_a, "k0"_a, "k1"_a, "limit"_a, "scale"_a, "threads"_a = 1,
          "level"_a = "");
    nb::class_<Block>(m, "Block", nb::type_slots(block_slots), "Memory from the pool, as a writable buffer.")
        .def(nb::init<std::size_t>(), "bytes"_a);
    m.def("keep_at_most", &keep_at_most, "bytes"_a, "Bound the memory that waits to be used again.");
    m.def("waiting", &waiting, "Bytes that wait to be used again.");
}
