// Threads that help with a kernel's work. They never change what it computes: work is divided so that every number is
// made by the same operations in the same order, whoever makes it.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <mutex>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fairtrial {

using Index = std::int64_t;

// Waits a moment for what another thread does; now and then it lets other processes run.
class Wait {
 public:
  void operator()() {
    if (++turns_ % 32 == 0) return void(sched_yield());
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#endif
  }
  int turns() const { return turns_; }

 private:
  int turns_ = 0;
};

// Helping threads, started when they are first wanted. They look out for work for about half a millisecond, as the next
// layer usually comes sooner, and sleep after that.
//
// A piece of work can be done by one thread alone or by several at once, and is over when one of them has come to its
// end and no other is inside. So a helper that wakes late, or that a busy machine does not let run, delays nobody.
class Pool {
 public:
  static constexpr int kMost = 60;

  Pool() : process_(getpid()) {}

  // The pool of this process, from where it is kept. A fork has its parent's memory but not its threads.
  static Pool& of_process(std::atomic<Pool*>& kept) {
    Pool* known = kept.load();
    if (known && known->process_ == getpid()) return *known;
    Pool* made = new Pool;  // never deleted: its threads may run until the process ends
    if (kept.compare_exchange_strong(known, made)) return *made;
    delete made;
    return *known;
  }

  // One caller at a time has the pool.
  bool take() { return !taken_.exchange(true, std::memory_order_acquire); }
  void give_back() { taken_.store(false, std::memory_order_release); }

  // Starts helpers up to so many, if the system lets it; returns how many there are. Each calls begin() first.
  int start(int helpers, void (*begin)()) {
    if (started_ >= helpers) return helpers;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads that know them
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, std::size_t{2} << 20);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (started_ < helpers) {
      auto* helper = new Helper{this, started_, begin};
      pthread_t thread;
      if (pthread_create(&thread, &attributes, &run_helper, helper) != 0) {
        delete helper;
        break;
      }
      ++started_;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return std::min(started_, helpers);
  }

  // Calls work() in this thread and in up to so many helpers at once.
  template <class Work>
  void run(int helpers, const Work& work) {
    work_ = [](const void* context) { (*static_cast<const Work*>(context))(); };
    context_ = &work;
    state_.store(++round_ << 32 | std::uint64_t(helpers) << 17 | kOpen);
    if (const std::uint64_t asleep = sleeping_.load(); asleep & ((std::uint64_t{1} << helpers) - 1)) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        sleeping_.store(0);
      }
      awake_.notify_all();
    }
    work();
    state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (Wait wait; state_.load(std::memory_order_acquire) & kInside;) wait();
  }

 private:
  struct Helper {
    Pool* pool;
    int number;
    void (*begin)();
  };

  // The state: the round of work, how many helpers it wants, whether it is open, and how many helpers are inside.
  static constexpr std::uint64_t kOpen = 1 << 16, kInside = kOpen - 1;
  static constexpr int kTurns = 20000;

  static bool calls(std::uint64_t state, int number) {
    return (state & kOpen) && number < int(state >> 17 & 0x7fff);
  }

  static void* run_helper(void* argument) {
    const Helper helper = *static_cast<Helper*>(argument);
    delete static_cast<Helper*>(argument);
    helper.begin();
    helper.pool->help(helper.number);
    return nullptr;
  }

  [[noreturn]] void help(int number) {
    std::uint64_t last = 0;
    for (Wait wait;;) {
      std::uint64_t now = state_.load();
      if (!calls(now, number) || now >> 32 == last) {
        wait();
        if (wait.turns() > kTurns) {
          sleep(number, last);
          wait = Wait{};
        }
        continue;
      }
      if (!state_.compare_exchange_weak(now, now + 1)) continue;
      last = now >> 32;
      work_(context_);
      state_.fetch_sub(1, std::memory_order_release);
      wait = Wait{};
    }
  }

  // Sleeps until `run` clears this helper's mark, which it does once it has opened work that the helper may have missed.
  void sleep(int number, std::uint64_t last) {
    const std::uint64_t mark = std::uint64_t{1} << number;
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_or(mark);
    const std::uint64_t now = state_.load();
    if (calls(now, number) && now >> 32 != last) {
      sleeping_.fetch_and(~mark);
      return;
    }
    awake_.wait(lock, [&] { return !(sleeping_.load() & mark); });
  }

  pid_t process_;
  std::atomic<bool> taken_{false};
  int started_ = 0;
  std::uint64_t round_ = 0;
  void (*work_)(const void*) = nullptr;
  const void* context_ = nullptr;
  std::atomic<std::uint64_t> state_{0}, sleeping_{0};
  std::mutex mutex_;
  std::condition_variable awake_;
};

// The threads of one call: this one, and helpers of a pool unless another call has them. Work must not be shared out
// from within shared work; there is `Threads()`, this thread alone, for that.
class Threads {
 public:
  Threads() = default;
  Threads(std::atomic<Pool*>& kept, int wanted, void (*begin)()) {
    if (wanted < 2) return;
    Pool& pool = Pool::of_process(kept);
    if (!pool.take()) return;
    pool_ = &pool;
    count_ = 1 + pool.start(std::min(wanted - 1, Pool::kMost), begin);
  }
  ~Threads() {
    if (pool_) pool_->give_back();
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return count_; }

  // Calls work() in one or more threads at once: it takes tasks until none is left.
  template <class Work>
  void share(const Work& work) const {
    if (count_ == 1) return work();
    pool_->run(count_ - 1, work);
  }

  // Calls task(number) once for each number below `count`; tasks begin in this order.
  template <class Task>
  void each(Index count, const Task& task) const {
    std::atomic<Index> next{0};
    const auto work = [&] {
      for (Index number; (number = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(number);
    };
    if (count < 2) return work();
    share(work);
  }

  // Calls task(begin, end) for all items, in ranges of at least so many and a multiple of `unit`; for one thread in one.
  template <class Task>
  void each_range(Index items, Index least, Index unit, const Task& task) const {
    const Index most = count_ == 1 ? 1 : std::max<Index>(1, std::min<Index>(items / least, 4 * count_));
    const Index step = (items / most + unit) / unit * unit;
    if (most == 1) return task(Index{0}, items);
    each((items + step - 1) / step, [&](Index range) { task(range * step, std::min((range + 1) * step, items)); });
  }

 private:
  Pool* pool_ = nullptr;
  int count_ = 1;
};

}  // namespace fairtrial
