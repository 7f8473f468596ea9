// Threads for one call.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace thinned {

// The OpenMP threads of a loaded torch, where it has them. They spin for a while after a matrix product, and keep
// the cores from threads of our own.
struct Team {
    void (*run)(void (*)(void *), void *, unsigned, unsigned);
    int (*me)(), (*size)();
};
const Team *team_of_torch();  // null where there is none, and in a forked process, which has no such threads

// The stretches [begin, end) of [0, n): each thread that asks gets the next one.
template <class Work>
class Stretches {
  public:
    Stretches(int64_t n, int64_t size, Work work) : n_(n), size_(size), open_((n + size - 1) / size), work_(work) {}

    // Works until no stretch is left.
    void help() {
        int64_t done = 0;
        for (int64_t begin; (begin = next_.fetch_add(size_, std::memory_order_relaxed)) < n_; ++done)
            work_(begin, std::min(begin + size_, n_));
        if (done == 0) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        if ((open_ -= done) == 0) all_.notify_one();
    }

    // Waits for the stretches that other threads have taken.
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        all_.wait(lock, [this] { return open_ == 0; });
    }

  private:
    const int64_t n_, size_;
    int64_t open_;
    std::atomic<int64_t> next_{0};
    std::mutex mutex_;
    std::condition_variable all_;
    const Work work_;
};

constexpr int64_t EACH = 4;  // stretches a thread: a late one takes fewer

// Runs work(begin, end) over [0, n) in parts of a multiple of `align`. Below `grain` a thread costs more than it
// saves. A negative number of threads means that many of torch's. Others are started for the call, and the caller does
// not wait for them to begin: OpenBLAS's threads spin for a while after a product, and a thread of ours may be a
// time slice late on a core that they hold. It then finds nothing to do, and touches nothing of the caller's.
template <class Work>
void split(int64_t n, int64_t grain, int64_t align, int threads, Work work) {
    grain = std::max<int64_t>(grain, 1);
    const int64_t crew = std::clamp<int64_t>(n / grain, 1, std::max(std::abs(threads), 1));
    if (crew == 1) return work(0, n);
    const auto part = [=](int64_t parts) { return ((n + parts - 1) / parts + align - 1) / align * align; };
    if (const Team *team = threads < 0 ? team_of_torch() : nullptr) {
        struct Job {
            const Team *team;
            const Work &work;
            int64_t n, size;
        } job{team, work, n, part(crew)};
        return team->run(
            [](void *data) {
                const Job &job = *static_cast<const Job *>(data);
                for (int64_t begin = job.team->me() * job.size; begin < job.n; begin += job.team->size() * job.size)
                    job.work(begin, std::min(begin + job.size, job.n));
            },
            &job, (unsigned)crew, 0);
    }
    const auto job = std::make_shared<Stretches<Work>>(n, part(std::min(crew * EACH, n / grain)), work);
    for (int64_t i = 1; i < crew; ++i) try {
            std::thread([job] { job->help(); }).detach();
        } catch (const std::system_error &) {  // no thread to be had
            break;
        }
    job->help();
    job->wait();
}

}  // namespace thinned
