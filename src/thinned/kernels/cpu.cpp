// The Python module thinned.kernels._cpu: picks the level, splits the work over threads.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernel.hpp"

namespace nb = nanobind;
using namespace thinned;

namespace {

template <class T>
using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<const Level *> available() {
    std::vector<const Level *> found{&plain::level};
#ifdef THINNED_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::level);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::level);
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

void mask(Array<bool> out, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, int threads, const std::string &level) {
    const auto fill = pick(level).mask;
    uint8_t *data = reinterpret_cast<uint8_t *>(out.data());
    const Draw draw{k0, k1, limit};
    const int64_t n = (int64_t)out.size();
    nb::gil_scoped_release release;
    split(n, threads, [=](int64_t begin, int64_t end) { fill(data + begin, start + begin, end - begin, draw); });
}

template <class T>
void dropout(Array<const T> x, Array<T> out, uint64_t start, uint32_t k0, uint32_t k1, uint64_t limit, double scale, int threads,
             const std::string &level) {
    if (x.size() != out.size()) throw std::invalid_argument("out must have the size of x");
    const Level &chosen = pick(level);
    const T *from = x.data();
    T *to = out.data();
    const Draw draw{k0, k1, limit};
    const int64_t n = (int64_t)x.size();
    nb::gil_scoped_release release;
    split(n, threads, [=, &chosen](int64_t begin, int64_t end) {
        if constexpr (sizeof(T) == 4)
            chosen.dropout_f32(from + begin, to + begin, start + begin, end - begin, draw, (T)scale);
        else
            chosen.dropout_f64(from + begin, to + begin, start + begin, end - begin, draw, (T)scale);
    });
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "Native CPU kernels; thinned.kernels calls them.";
    m.def("levels", [] {
        nb::list names;
        for (const Level *level : available()) names.append(level->name);
        return names;
    });
    using namespace nb::literals;
    m.def("mask", &mask, "out"_a.noconvert(), "start"_a, "k0"_a, "k1"_a, "limit"_a, "threads"_a = 1, "level"_a = "");
    m.def("dropout", &dropout<float>, "x"_a.noconvert(), "out"_a.noconvert(), "start"_a, "k0"_a, "k1"_a, "limit"_a, "scale"_a, "threads"_a = 1,
          "level"_a = "");
    m.def("dropout", &dropout<double>, "x"_a.noconvert(), "out"_a.noconvert(), "start"_a, "k0"_a, "k1"_a, "limit"_a, "scale"_a, "threads"_a = 1,
          "level"_a = "");
}
