// The Python module thinned.kernels._cpu: picks the level, splits the work over threads. Arrays come as
// addresses: thinned.kernels, the only caller, sees to it that they fit.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel.hpp"
#include "picks.hpp"
#include "pool.hpp"
#include "products.hpp"
#include "split.hpp"
#include "strides.hpp"
#include "survivors.hpp"

#ifdef THINNED_X86
#include <cpuid.h>
#endif

namespace nb = nanobind;
using namespace thinned;

namespace {

using Address = uintptr_t;

std::vector<const Level *> available() {
    std::vector<const Level *> found{&plain::table};
#ifdef THINNED_X86
    __builtin_cpu_init();
    unsigned a, b, c = 0, d;  // every CPU with AVX2 has these so far, but none has to
    const bool others = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && (c & bit_FMA);
    if (others && __builtin_cpu_supports("avx2")) found.push_back(&avx2::table);
    if (others && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::table);
#endif
#ifdef THINNED_ARM
    found.push_back(&neon::table);  // every 64-bit ARM processor has it
#endif
    return found;
}

// The same, found once: it takes longer than a short call.
const std::vector<const Level *> &levels() {
    static const std::vector<const Level *> found = available();
    return found;
}

constexpr int64_t SIZES[] = {4, 8, 2, 2};  // bytes, by DType

constexpr int64_t BLOCK = 64 * 128;  // parts of an array are whole blocks of units
constexpr int64_t GRAIN_OF_NORMALS = 1 << 15;  // elements that a thread must have to pay
constexpr int64_t CACHE = 1 << 24;  // bytes; a larger result is written past the caches

// Elements of a mask that a thread must have to pay: torch's wait (threads < 0), ours are started for the call.
int64_t grain(int threads) { return threads < 0 ? 1 << 17 : 1 << 19; }

// Two arrays of one shape: n elements one after the other in both, or strides for each.
struct Contiguous {
    int64_t n;
};
struct Strided {
    Walk x, out;
};

// Runs kernel(x, out, first, n), which knows contiguous memory alone, over all elements in their logical order.
template <class Kernel>
void over(Contiguous all, int size, Address x, Address out, int threads, int64_t grain, Kernel kernel) {
    const char *from = reinterpret_cast<const char *>(x);
    char *to = reinterpret_cast<char *>(out);
    split(all.n, grain, BLOCK, threads, [=](int64_t begin, int64_t end) { kernel(from + begin * size, to + begin * size, begin, end - begin); });
}

template <class Kernel>
void over(const Strided &all, int size, Address x, Address out, int threads, int64_t grain, Kernel kernel) {
    const char *from = reinterpret_cast<const char *>(x);
    char *to = reinterpret_cast<char *>(out);
    split(all.x.size(), grain, BLOCK, threads, [=, &all](int64_t begin, int64_t end) {
        constexpr int64_t SOME = 1024;
        alignas(64) char some[SOME * 8];
        Walk read = all.x, write = all.out;
        read.go_to(begin), write.go_to(begin);
        for (int64_t i = begin; i < end; i += SOME) {
            const int64_t m = std::min(SOME, end - i);
            read.gather(from, some, m, size);
            kernel(some, some, i, m);
            write.scatter(some, to, m, size);
        }
    });
}

Contiguous layout(int64_t n) { return {n}; }

using Sizes = std::vector<int64_t>;

Strided layout(const std::tuple<Sizes, Sizes, Sizes> &all) {
    return {Walk(std::get<0>(all), std::get<1>(all)), Walk(std::get<0>(all), std::get<2>(all))};
}

void mask(Address out, int64_t n, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    uint8_t *to = reinterpret_cast<uint8_t *>(out);
    const Draw draw{k0, k1, limit};
    nb::gil_scoped_release release;
    split(n, grain(threads), BLOCK, threads, [=, &kernels](int64_t begin, int64_t end) { kernels.mask(to + begin, start + begin, end - begin, draw); });
}

template <class Where>
void drop(int dtype, Address x, Address out, Where where, int threads, uint32_t k0, uint32_t k1, uint64_t limit, uint64_t start,
          int64_t inner, double scale, double shift, double fill, const std::string &level) {
    const Level &kernels = level_of(level);
    const Drop how{{k0, k1, limit}, start, inner, scale, shift, fill};
    const auto all = layout(where);
    nb::gil_scoped_release release;
    bool stream = false;
    if constexpr (std::is_same_v<Where, int64_t>) stream = x != out && where * SIZES[dtype] >= CACHE;
    over(all, SIZES[dtype], x, out, threads, grain(threads), [=, &kernels, &how](const void *from, void *to, int64_t first, int64_t n) {
        kernels.drop(DType(dtype), from, to, first, n, how, stream);
    });
}

// Parts of a whole of `units` that a thread must have to pay.
int64_t grain(int threads, int64_t parts, int64_t units) { return grain(threads) / std::max<int64_t>(units / std::max<int64_t>(parts, 1), 1); }

// The products of DropConnect: `of` is 0 for y from (x, weight), 1 for grad_x from (grad, weight), 2 for grad_weight from
// (grad, x).
void connect(int of, int dtype, Address a, Address b, Address out, std::array<int64_t, 3> shape, uint64_t start, uint32_t k0, uint32_t k1,
             uint64_t limit, double scale, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    const void *first = reinterpret_cast<const void *>(a), *second = reinterpret_cast<const void *>(b);
    void *to = reinterpret_cast<void *>(out);
    const auto [samples, rows, columns] = shape;
    const Connect c{rows, columns, start, {k0, k1, limit}, scale};
    const DType type = DType(dtype);
    nb::gil_scoped_release release;
    const bool by_rows = of == 2 || (of == 0 && rows > samples);
    const Range every{0, samples}, whole{0, rows};
    const int64_t parts = by_rows ? rows : samples, units = samples * rows * columns;
    split(parts, grain(threads, parts, units), 1, threads, [=, &kernels](int64_t begin, int64_t end) {
        const Range part{begin, end};
        if (of == 0) kernels.connect(type, first, second, to, c, by_rows ? every : part, by_rows ? part : whole);
        if (of == 1) kernels.connect_by_x(type, first, second, to, c, part);
        if (of == 2) kernels.connect_by_weight(type, first, second, to, c, every.end, part);
    });
}

void drop_block(int dtype, Address x, Address out, int64_t n, int64_t channels, int64_t maps, std::array<int64_t, 3> size,
                std::array<int64_t, 3> block, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    Blocks b{channels, maps, {}, {}, start, {k0, k1, limit}};
    std::copy(size.begin(), size.end(), b.size);
    std::copy(block.begin(), block.end(), b.block);
    const void *from = reinterpret_cast<const void *>(x);
    void *to = reinterpret_cast<void *>(out);
    nb::gil_scoped_release release;
    split(n, grain(threads, n, n * channels * size[0] * size[1] * size[2]), 1, threads,
          [=, &kernels](int64_t begin, int64_t end) { kernels.drop_block(DType(dtype), from, to, b, {begin, end}); });
}

template <class Where>
void noise(int dtype, Address x, Address out, Where where, int threads, uint32_t k0, uint32_t k1, uint64_t start, double deviation,
           const std::string &level) {
    const Level &kernels = level_of(level);
    const Noise how{k0, k1, start, deviation};
    const auto all = layout(where);
    nb::gil_scoped_release release;
    over(all, SIZES[dtype], x, out, threads, GRAIN_OF_NORMALS, [=, &kernels, &how](const void *from, void *to, int64_t first, int64_t n) {
        kernels.noise(DType(dtype), from, to, first, n, how);
    });
}

int64_t panel(int dtype, const std::string &level) { return level_of(level).panel(DType(dtype)); }

void lay_out(int dtype, Address x, int64_t rows, int64_t units, Address out, const std::string &level) {
    const Level &kernels = level_of(level);
    nb::gil_scoped_release release;
    kernels.lay_out(DType(dtype), reinterpret_cast<const void *>(x), rows, units, reinterpret_cast<void *>(out));
}

// weight, bias, in, out, by_in, by_out, list_in, list_out, scale, clip: the fields of Dense.
using Layer = std::tuple<Address, Address, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, double, bool>;
constexpr int64_t PANELS = 64;       // of an item at most: enough rows that taking the weights costs little
constexpr int64_t WIDEST = 1 << 24;  // bytes of a layer's units in an item

void networks(int dtype, Address x, int64_t rows, int64_t units, Address words, uint64_t limit, uint64_t start, const std::vector<Layer> &layers,
              int64_t n, Address lists, int64_t lists_each, Address out, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    std::vector<Dense> dense;
    int64_t widest = std::max<int64_t>(words ? units : 1, 1);
    for (const auto &[weight, bias, in, out, by_in, by_out, list_in, list_out, scale, clip] : layers) {
        dense.push_back({reinterpret_cast<const void *>(weight), reinterpret_cast<const void *>(bias), in, out, by_in, by_out,
                         list_in, list_out, scale, clip});
        widest = std::max(widest, out);
    }
    nb::gil_scoped_release release;
    const int64_t width = kernels.panel(DType(dtype)), all = (rows + width - 1) / width;
    if (n == 0 || all == 0) return;
    const int64_t most = std::clamp<int64_t>(WIDEST / (width * widest * SIZES[dtype]), 1, PANELS);
    const int64_t few = std::min(all, (std::abs(threads) + n - 1) / n);  // parts of the rows, so that each thread has work
    const int64_t parts = std::max((all + most - 1) / most, few), some = (all + parts - 1) / parts;
    const Networks work{reinterpret_cast<const void *>(x), rows, units, reinterpret_cast<const uint32_t *>(words), limit, start,
                        dense.data(), (int64_t)dense.size(), reinterpret_cast<const int64_t *>(lists), lists_each,
                        reinterpret_cast<void *>(out), some};
    split(n * ((all + some - 1) / some), 1, 1, threads,
          [=, &kernels, &work](int64_t begin, int64_t end) { kernels.networks(DType(dtype), work, {begin, end}); });
}

void normals(Address out, int64_t n, uint64_t start, uint32_t k0, uint32_t k1, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    double *to = reinterpret_cast<double *>(out);
    nb::gil_scoped_release release;
    split(n, GRAIN_OF_NORMALS, BLOCK, threads,
          [=, &kernels](int64_t begin, int64_t end) { kernels.normals(to + begin, start + begin, end - begin, k0, k1); });
}

int block_buffer(PyObject *self, Py_buffer *view, int flags) {
    Block *block = nb::inst_ptr<Block>(nb::handle(self));
    return PyBuffer_FillInfo(view, self, block->data(), (Py_ssize_t)block->size(), 0, flags);
}

PyType_Slot block_slots[] = {{Py_bf_getbuffer, (void *)block_buffer}, {0, nullptr}};

}  // namespace

const Level &thinned::level_of(const std::string &name) {
    if (name.empty()) return *levels().back();
    for (const Level *level : levels())
        if (name == level->name) return *level;
    throw std::invalid_argument("level must be one of levels(), got '" + name + "'");
}

NB_MODULE(_cpu, m) {
    m.doc() = "Native CPU kernels; thinned.kernels calls them.";
    nb::set_leak_warnings(false);  // a tensor that lives until the interpreter ends keeps its Block
    m.def("levels", [] {
        nb::list names;
        for (const Level *level : levels()) names.append(level->name);
        return names;
    });
    using namespace nb::literals;
    m.def("mask", &mask, "out"_a, "n"_a, "start"_a, "k0"_a, "k1"_a, "limit"_a, "threads"_a = 1, "level"_a = "");
    m.def("connect", &connect, "of"_a, "dtype"_a, "a"_a, "b"_a, "out"_a, "shape"_a, "start"_a, "k0"_a, "k1"_a, "limit"_a, "scale"_a,
          "threads"_a = 1, "level"_a = "");
    m.def("drop_block", &drop_block, "dtype"_a, "x"_a, "out"_a, "n"_a, "channels"_a, "maps"_a, "size"_a, "block"_a, "start"_a, "k0"_a,
          "k1"_a, "limit"_a, "threads"_a = 1, "level"_a = "");
    const auto both = [&](const char *name, auto contiguous, auto strided, const auto &...rest) {
        m.def(name, contiguous, "dtype"_a, "x"_a, "out"_a, "layout"_a, "threads"_a, rest...);
        m.def(name, strided, "dtype"_a, "x"_a, "out"_a, "layout"_a, "threads"_a, rest...);
    };
    using Layout = const std::tuple<Sizes, Sizes, Sizes> &;
    both("drop", &drop<int64_t>, &drop<Layout>, "k0"_a, "k1"_a, "limit"_a, "start"_a, "inner"_a, "scale"_a, "shift"_a = 0.0,
         "fill"_a = 0.0, "level"_a = "");
    both("noise", &noise<int64_t>, &noise<Layout>, "k0"_a, "k1"_a, "start"_a, "deviation"_a, "level"_a = "");
    m.def("panel", &panel, "dtype"_a, "level"_a = "");
    m.def("lay_out", &lay_out, "dtype"_a, "x"_a, "rows"_a, "units"_a, "out"_a, "level"_a = "");
    m.def("networks", &networks, "dtype"_a, "x"_a, "rows"_a, "units"_a, "words"_a, "limit"_a, "start"_a, "layers"_a, "n"_a, "lists"_a,
          "lists_each"_a, "out"_a, "threads"_a = 1, "level"_a = "");
    m.def("normals", &normals, "out"_a, "n"_a, "start"_a, "k0"_a, "k1"_a, "threads"_a = 1, "level"_a = "");
    nb::class_<Block>(m, "Block", nb::type_slots(block_slots), "Memory from the pool, as a writable buffer.")
        .def(nb::init<std::size_t>(), "bytes"_a);
    m.def("keep_at_most", &keep_at_most, "bytes"_a, "Bound the memory that waits to be used again.");
    m.def("waiting", &waiting, "Bytes that wait to be used again.");
    bind_picks(m);
    bind_products(m);
    bind_survivors(m);
}
