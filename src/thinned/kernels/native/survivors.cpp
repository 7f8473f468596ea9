// The operations of `thin` on a weight of (rows, columns, kernel): take the survivors out, put them back among
// zeros, and take an optimizer's step with a gradient that exists for the survivors alone.
//
// Rules are rounded operation by operation, in the order of the NumPy rules in survivors.py: this file and steps.cpp
// are compiled without contraction (no fused multiply-add), so both give the same bits.
// Arrays come as addresses; survivors.py checks their sizes, dtypes and layout.

#include "survivors.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "kernel.hpp"
#include "past.hpp"
#include "split.hpp"

namespace nb = nanobind;
using namespace thinned;

namespace {

using Address = uintptr_t;
using Index = const int64_t *;
constexpr int64_t COPIED = 1 << 18;   // elements: below that a second thread costs more than it saves
constexpr int64_t STEPPED = 1 << 16;  // the same, of an optimizer's step
template <class T>
constexpr DType DTYPE = sizeof(T) == 4 ? DType::float32 : DType::float64;
constexpr int64_t CACHED = 1 << 23;   // bytes: a larger array is written past the caches

// Which rows and columns of an array (rows, columns, kernel); null is all of them. Ascending.
struct Part {
    int64_t rows, columns, kernel;
    Index row, column;
    int64_t n_rows, n_columns;

    using Tuple = std::tuple<int64_t, int64_t, int64_t, Address, int64_t, Address, int64_t>;
    explicit Part(const Tuple &t)
        : rows(std::get<0>(t)), columns(std::get<1>(t)), kernel(std::get<2>(t)), row((Index)std::get<3>(t)),
          column((Index)std::get<5>(t)), n_rows(std::get<4>(t)), n_columns(std::get<6>(t)) {}

    int64_t width() const { return columns * kernel; }      // of a row
    int64_t compact() const { return n_columns * kernel; }  // of a row of survivors
};

// The survivors of one row, and back.
template <class T>
inline void gather(const T *from, T *to, const Part &part) {
    if (!part.column)
        std::memcpy(to, from, part.width() * sizeof(T));
    else if (part.kernel == 1)
        for (int64_t j = 0; j < part.n_columns; ++j) to[j] = from[part.column[j]];
    else
        for (int64_t j = 0; j < part.n_columns; ++j)
            std::memcpy(to + j * part.kernel, from + part.column[j] * part.kernel, part.kernel * sizeof(T));
}

template <class T>
inline void scatter(const T *from, T *to, const Part &part) {
    if (!part.column)
        std::memcpy(to, from, part.width() * sizeof(T));
    else if (part.kernel == 1)
        for (int64_t j = 0; j < part.n_columns; ++j) to[part.column[j]] = from[j];
    else
        for (int64_t j = 0; j < part.n_columns; ++j)
            std::memcpy(to + part.column[j] * part.kernel, from + j * part.kernel, part.kernel * sizeof(T));
}

// Calls use(r, i) for the rows r of [begin, end): i is its place among the survivors, −1 where it was dropped.
template <class Use>
inline void for_rows(const Part &part, int64_t begin, int64_t end, Use use) {
    int64_t i = part.row ? std::lower_bound(part.row, part.row + part.n_rows, begin) - part.row : begin;
    for (int64_t r = begin; r < end; ++r) {
        const bool survives = !part.row || (i < part.n_rows && part.row[i] == r);
        use(r, survives ? i++ : -1);
    }
}

template <class T>
void take(const T *w, T *out, const Part &part, int threads) {
    if (part.compact() == 0) return;  // memcpy wants addresses even for nothing
    split(part.n_rows, COPIED / std::max<int64_t>(part.compact(), 1), 1, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            gather(w + (part.row ? part.row[i] : i) * part.width(), out + i * part.compact(), part);
    });
}

template <class T>
void place(const T *compact, T *out, const Part &part, int threads) {
    const int64_t width = part.width(), bytes = width * (int64_t)sizeof(T);
    if (bytes == 0) return;
    const auto copy = part.rows * bytes > CACHED ? copy_past : [](void *to, const void *from, int64_t n) { std::memcpy(to, from, n); };
    split(part.rows, COPIED / std::max<int64_t>(width, 1), 1, threads, [=](int64_t begin, int64_t end) {
        const std::vector<T> zeros(width);
        std::vector<T> line(part.column ? width : 0);  // survivors change, the zeros between them stay
        for_rows(part, begin, end, [&](int64_t r, int64_t i) {
            const T *from = i < 0 ? zeros.data() : compact + i * part.compact();
            if (i >= 0 && part.column) {
                scatter(from, line.data(), part);
                from = line.data();
            }
            copy(out + r * width, from, bytes);
        });
#ifdef __SSE2__
        _mm_sfence();
#endif
    });
}

// Calls step(first, g, n) for stretches of the array: its elements first … first + n − 1 have the gradients g.
template <class T, class Step>
void sweep(const T *g, const Part &part, int threads, Step step) {
    const int64_t width = part.width();
    if (width == 0) return;
    if (!part.row && !part.column)
        return split(part.rows * width, STEPPED, 64, threads, [=](int64_t begin, int64_t end) { step(begin, g + begin, end - begin); });
    split(part.rows, STEPPED / std::max<int64_t>(width, 1), 1, threads, [=](int64_t begin, int64_t end) {
        const std::vector<T> zeros(width);
        std::vector<T> line(part.column ? width : 0);
        for_rows(part, begin, end, [&](int64_t r, int64_t i) {
            const T *from = i < 0 ? zeros.data() : g + i * part.compact();
            if (i >= 0 && part.column) {
                scatter(from, line.data(), part);
                from = line.data();
            }
            step(r * width, from, width);
        });
    });
}

// w ← w − lr·g for the survivors alone; the others do not change.
template <class T>
void touch(T *w, const T *g, const Part &part, int threads, T lr) {
    split(part.n_rows, STEPPED / std::max<int64_t>(part.compact(), 1), 1, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            T *__restrict w_ = w + (part.row ? part.row[i] : i) * part.width();
            const T *g_ = g + i * part.compact();
            if (!part.column)
                for (int64_t j = 0; j < part.width(); ++j) w_[j] -= lr * g_[j];
            else
                for (int64_t j = 0; j < part.n_columns; ++j)
                    for (int64_t k = 0; k < part.kernel; ++k) w_[part.column[j] * part.kernel + k] -= lr * g_[j * part.kernel + k];
        }
    });
}

template <class T>
void sgd(T *w, T *v, const T *g, const Part &part, const Descent &rule, int threads, const Level &level) {
    if (rule.momentum == 0 && rule.l1 == 0 && rule.l2 == 0 && (part.row || part.column))
        return touch(w, g, part, threads, (T)rule.lr);
    sweep(g, part, threads, [=, &rule, &level](int64_t first, const T *g_, int64_t n) {
        level.descend(DTYPE<T>, w + first, v ? v + first : nullptr, g_, n, rule);
    });
}

template <class T>
void adam(T *w, T *m, T *v, const T *g, const Part &part, const Moments &rule, int threads, const Level &level) {
    sweep(g, part, threads, [=, &rule, &level](int64_t first, const T *g_, int64_t n) {
        level.adam(DTYPE<T>, w + first, m + first, v + first, g_, n, rule);
    });
}

// w ← w·min(1, c/‖w‖) for each row w that survives; its sum of squares is taken in double, lane by lane.
template <class T>
void clip(T *w, const Part &part, double c, int threads) {
    constexpr int LANES = 8;
    split(part.n_rows, COPIED / std::max<int64_t>(part.width(), 1), 1, threads, [=](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            T *row = w + (part.row ? part.row[r] : r) * part.width();
            double lane[LANES] = {}, total = 0;
            int64_t i = 0;
            for (; i + LANES <= part.width(); i += LANES)
                for (int j = 0; j < LANES; ++j) lane[j] += (double)row[i + j] * row[i + j];
            for (; i < part.width(); ++i) lane[0] += (double)row[i] * row[i];
            for (double one : lane) total += one;
            const double norm = std::sqrt(total);
            if (norm <= c || norm != norm) continue;
            const T factor = (T)(c / norm);
            for (int64_t k = 0; k < part.width(); ++k) row[k] *= factor;
        }
    });
}

// Calls `call` with a pointer to an unsigned type of that many bytes: values are only moved.
template <class Call>
void by_size(int64_t itemsize, Call call) {
    if (itemsize == 2)
        call((uint16_t *)nullptr);
    else if (itemsize == 4)
        call((uint32_t *)nullptr);
    else
        call((uint64_t *)nullptr);
}

template <class Call>
void by_float(int64_t itemsize, Call call) {
    if (itemsize == 4)
        call((float *)nullptr);
    else
        call((double *)nullptr);
}

}  // namespace

void bind_survivors(nb::module_ &m) {
    using namespace nb::literals;
    m.def("take", [](Address w, Address out, Part::Tuple part, int64_t itemsize, int threads) {
        nb::gil_scoped_release release;
        by_size(itemsize, [&](auto *type) { take((decltype(type))w, (decltype(type))out, Part(part), threads); });
    });
    m.def("place", [](Address compact, Address out, Part::Tuple part, int64_t itemsize, int threads) {
        nb::gil_scoped_release release;
        by_size(itemsize, [&](auto *type) { place((decltype(type))compact, (decltype(type))out, Part(part), threads); });
    });
    m.def("sgd", [](Address w, Address v, Address g, Part::Tuple part, int64_t itemsize, double lr, double momentum, bool nesterov,
                    double l1, double l2, int threads, const std::string &level) {
        const Level &kernels = level_of(level);
        nb::gil_scoped_release release;
        by_float(itemsize, [&](auto *type) {
            using Numbers = decltype(type);
            sgd((Numbers)w, (Numbers)v, (Numbers)g, Part(part), Descent{lr, momentum, l1, l2, nesterov}, threads, kernels);
        });
    }, "w"_a, "v"_a, "g"_a, "part"_a, "itemsize"_a, "lr"_a, "momentum"_a, "nesterov"_a, "l1"_a, "l2"_a, "threads"_a, "level"_a = "");
    m.def("adam", [](Address w, Address m1, Address v, Address g, Part::Tuple part, int64_t itemsize, double beta1, double beta2,
                     double rest1, double rest2, double rate, double eps, double keep, double l1, double l2, int threads,
                     const std::string &level) {
        const Level &kernels = level_of(level);
        nb::gil_scoped_release release;
        by_float(itemsize, [&](auto *type) {
            using Numbers = decltype(type);
            const Moments rule{beta1, beta2, rest1, rest2, rate, eps, keep, l1, l2};
            adam((Numbers)w, (Numbers)m1, (Numbers)v, (Numbers)g, Part(part), rule, threads, kernels);
        });
    }, "w"_a, "m1"_a, "v"_a, "g"_a, "part"_a, "itemsize"_a, "beta1"_a, "beta2"_a, "rest1"_a, "rest2"_a, "rate"_a, "eps"_a, "keep"_a,
          "l1"_a, "l2"_a, "threads"_a, "level"_a = "");
    m.def("clip", [](Address w, Part::Tuple part, int64_t itemsize, double c, int threads) {
        nb::gil_scoped_release release;
        by_float(itemsize, [&](auto *type) { clip((decltype(type))w, Part(part), c, threads); });
    });
}
