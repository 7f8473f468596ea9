// Linear layers whose rows keep units of their own: which units, and the products of groups.cpp over threads.

#include "products.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernel.hpp"
#include "pool.hpp"
#include "split.hpp"

namespace nb = nanobind;
using namespace thinned;

namespace {

using Address = uintptr_t;

constexpr int64_t size_of(int dtype) { return DType(dtype) == DType::float64 ? 8 : 4; }

// The units that each group of rows keeps, as the kernels read them.
class Kept {
  public:
    // Panels of `panel` units in the order, of which each group keeps some; width: the most units of a group.
    Kept(int64_t n, int64_t panel, int64_t groups, int64_t width, const int64_t *order, const bool *kept)
        : n_(n), groups_(groups), width_(width), order_(order, order + n), index_(groups * width), place_(groups * n), count_(groups),
          words_((groups + 63) / 64) {
        lists(panel, kept);
        panels(panel, kept);
    }

    int64_t groups() const { return groups_; }
    Side side() const {
        return {n_, width_, (int64_t)starts_.size() - 1, index_.data(), count_.data(), place_.data(), order_.data(), starts_.data(), keep_.data(), words_};
    }

  private:
    // The units of each group, ascending, and their columns.
    void lists(int64_t panel, const bool *kept) {
        const int64_t all = (n_ + panel - 1) / panel;
        std::vector<int32_t> panel_of(n_), list(n_ + 1);
        for (int64_t q = 0; q < all; ++q)
            for (int64_t i = q * panel; i < std::min((q + 1) * panel, n_); ++i) panel_of[order_[i]] = (int32_t)q;
        for (int64_t g = 0; g < groups_; ++g) {
            int32_t n = 0, *place = place_.data() + g * n_;
            const bool *of_group = kept + g * all;
            for (int32_t unit = 0; unit < n_; ++unit) {
                const int32_t has = of_group[panel_of[unit]];
                list[n] = unit, place[unit] = n | (has - 1);  // no branch, which half of the units would take
                n += has;
            }
            std::copy(list.begin(), list.begin() + n, index_.begin() + g * width_);
            count_[g] = n;
        }
    }

    // Panels of the kernels: several small ones together, or parts of a large one.
    void panels(int64_t panel, const bool *kept) {
        const int64_t all = (n_ + panel - 1) / panel, some = std::max<int64_t>(PANEL / panel, 1), most = std::min(some * panel, PANEL);
        for (int64_t first = 0; first < n_; first += some * panel)
            for (int64_t i = first; i < std::min(first + some * panel, n_); i += most) {
                starts_.push_back((int32_t)i);
                keep_.resize(keep_.size() + words_);
                for (int64_t q = first / panel; q < std::min(first / panel + some, all); ++q)
                    for (int64_t g = 0; g < groups_; ++g) keep_[keep_.size() - words_ + g / 64] |= (uint64_t)kept[g * all + q] << g % 64;
            }
        starts_.push_back((int32_t)n_);
    }

    int64_t n_, groups_, width_;
    std::vector<int32_t> order_, index_, place_;
    std::vector<int64_t> count_;
    std::vector<int32_t> starts_;
    std::vector<uint64_t> keep_;
    int64_t words_;
};

// A side of n units, all of which are kept where there is no `kept`.
Side side(const Kept *kept, int64_t n) {
    return kept ? kept->side() : Side{n, n, (n + PANEL - 1) / PANEL, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0};
}

using Rows = std::array<int64_t, 3>;  // how many, groups, the group of the first
using Shape = std::array<int64_t, 2>;  // outputs, inputs

constexpr int64_t TALLEST = 96, LEAST = 12;  // units of a block of a product
constexpr int64_t FEW_ROWS = 8;              // of a group at most, for which few.cpp is faster
constexpr int64_t FEW = 8, MANY = 32;        // panels of its blocks: where weights lie by units; by inputs, whose rows are read for each block
constexpr int64_t MULTIPLIED = 1 << 19;  // products that a thread must have to pay

int64_t units_of_block(int64_t units, int64_t crew) {
    const int64_t each = (units + 4 * crew - 1) / (4 * crew);
    return std::clamp<int64_t>(crew > 1 ? (each + 5) / 6 * 6 : TALLEST, LEAST, TALLEST);
}

int64_t panels_of_block(int64_t panels, bool by_inputs, int64_t crew) {
    return by_inputs ? std::clamp<int64_t>((panels + crew - 1) / crew, 1, MANY) : std::clamp<int64_t>(panels / (4 * crew), 1, FEW);
}

// y = scale x wᵀ + bias; transposed: the memory of the weights has a row for each input.
void product(int dtype, const Rows &rows, Address x, Address weight, const Shape &shape, bool transposed, Address bias, const Kept *in, const Kept *out,
             double scale, Address y, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    const DType type = DType(dtype);
    nb::gil_scoped_release release;
    Product p{{rows[0], rows[1], rows[2]}, side(in, shape[1]), side(out, shape[0]), (const void *)x, (const void *)weight, (const void *)bias,
              transposed ? 1 : shape[1], transposed ? shape[0] : 1, scale, (void *)y, 0, nullptr};
    if (p.groups.rows == 0 || p.out.n == 0) return;
    const bool few = p.groups.most() <= FEW_ROWS;
    const int64_t crew = std::max(std::abs(threads), 1), width = std::max<int64_t>(p.in.width, 1), work = p.groups.rows * width;
    const Block strips((few ? p.groups.n * p.groups.most() : kernels.strips(type, p.groups)) * width * size_of(dtype));
    p.strips = strips.data();
    p.tall = few ? panels_of_block(p.out.panels, transposed, crew) : units_of_block(p.out.n, crew);
    const int64_t all = few ? p.out.panels : p.out.n, blocks = (all + p.tall - 1) / p.tall;
    const auto lay_out = few ? kernels.into_tiles : kernels.into_strips, multiply = few ? kernels.multiply_few : kernels.multiply;
    split(p.groups.n, MULTIPLIED / (8 * std::max<int64_t>(work / p.groups.n, 1)) + 1, 1, threads,
          [&](int64_t begin, int64_t end) { lay_out(type, p, {begin, end}); });
    split(blocks, MULTIPLIED / std::max<int64_t>(work * p.out.width / blocks, 1) + 1, 1, threads,
          [&](int64_t begin, int64_t end) { multiply(type, p, {begin, end}); });
}

void correlate(int dtype, const Rows &rows, Address grad, Address x, const Shape &shape, const Kept *in, const Kept *out, double scale,
               Address out_weight, int threads, const std::string &level) {
    const Level &kernels = level_of(level);
    const DType type = DType(dtype);
    nb::gil_scoped_release release;
    Correlation c{{rows[0], rows[1], rows[2]}, side(in, shape[1]), side(out, shape[0]), (const void *)grad, (const void *)x, scale,
                  (void *)out_weight, nullptr, nullptr};
    if (c.in.n == 0 || c.out.n == 0) return;
    const int64_t all = c.groups.n * c.groups.most();
    const auto room = [&](const Side &s) { return Block(s.panels * std::max<int64_t>(all, 1) * PANEL * size_of(dtype)); };
    const Block grads = room(c.out), xs = room(c.in);
    c.grads = grads.data(), c.xs = xs.data();
    const int64_t grain = MULTIPLIED / std::max<int64_t>(all * PANEL, 1);
    for (const bool of_grad : {false, true})
        split((of_grad ? c.out : c.in).panels, grain / 8 + 1, 1, threads,
              [&](int64_t begin, int64_t end) { kernels.into_panels(type, c, of_grad, {begin, end}); });
    split(c.out.panels, grain / std::max<int64_t>(c.in.n, 1) + 1, 1, threads,
          [&](int64_t begin, int64_t end) { kernels.correlate(type, c, {begin, end}); });
}

// The sum of each unit over the rows whose group keeps it.
template <class T>
void sums_of(const Groups &groups, const T *grad, const Side &out, T *to) {
    std::vector<double> sum(out.n), part(out.width);
    for (int64_t g = 0; g < groups.n; ++g) {
        const int64_t units = out.index ? out.count[g] : out.n;
        std::fill(part.begin(), part.end(), 0.0);
        for (int64_t r = 0; r < groups.size(g); ++r) {
            const T *row = grad + (groups.row(g) + r * groups.n) * out.width;
            for (int64_t i = 0; i < units; ++i) part[i] += row[i];
        }
        for (int64_t i = 0; i < units; ++i) sum[out.index ? out.index[g * out.width + i] : i] += part[i];
    }
    std::copy(sum.begin(), sum.end(), to);
}

void sums(int dtype, const Rows &rows, Address grad, int64_t n, const Kept *of_out, Address out) {
    const Groups all{rows[0], rows[1], rows[2]};
    nb::gil_scoped_release release;
    if (DType(dtype) == DType::float32) sums_of(all, (const float *)grad, side(of_out, n), (float *)out);
    if (DType(dtype) == DType::float64) sums_of(all, (const double *)grad, side(of_out, n), (double *)out);
}

}  // namespace

void bind_products(nb::module_ &m) {
    using namespace nb::literals;
    nb::class_<Kept>(m, "Kept", "The units that each group of rows keeps.")
        .def("__init__", [](Kept *self, int64_t n, int64_t panel, int64_t groups, int64_t width, Address order, Address kept) {
            new (self) Kept(n, panel, groups, width, (const int64_t *)order, (const bool *)kept);
        }, "n"_a, "panel"_a, "groups"_a, "width"_a, "order"_a, "kept"_a);
    m.def("product", &product, "dtype"_a, "rows"_a, "x"_a, "weight"_a, "shape"_a, "transposed"_a, "bias"_a, "of_in"_a.none(), "of_out"_a.none(),
          "scale"_a, "y"_a, "threads"_a = 1, "level"_a = "");
    m.def("correlate", &correlate, "dtype"_a, "rows"_a, "grad"_a, "x"_a, "shape"_a, "of_in"_a.none(), "of_out"_a.none(), "scale"_a,
          "out_weight"_a, "threads"_a = 1, "level"_a = "");
    m.def("sums", &sums, "dtype"_a, "rows"_a, "grad"_a, "n"_a, "of_out"_a.none(), "out"_a);
}
