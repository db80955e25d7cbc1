// What a template may use: its source, and the time and memory of one rendering, which its caller may end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <utility>

#include "absl/status/status.h"

namespace pkv::jinja {

struct Limits {
  // Of a template's text, when it is parsed.
  size_t source_bytes = 256 << 10;
  int nesting = 120;  // brackets, operators and blocks in each other
  // Of one rendering.
  int64_t steps = 2'000'000;       // an expression or statement is one; so is every 64 bytes or 8 values looked at
  size_t memory_bytes = 64 << 20;  // of all values alive, the output among them
  int depth = 400;                 // of expressions, blocks and macros being evaluated
};

// Values in values: lists, dicts, methods of them. More is refused, so that nothing walks down without end.
inline constexpr int kMaxValueDepth = 64;

// Steps and bytes of one rendering. Work that goes over does not fail at once: it is noted here, what is large stops,
// and the interpreter ends the rendering at its next step.
class Budget {
 public:
  // Once `stop` was requested there is nothing left.
  Budget(const Limits& limits, std::stop_token stop)
      : stop_(std::move(stop)), steps_left_(limits.steps), bytes_left_(limits.memory_bytes) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  void spend(int64_t steps) { steps_left_ -= steps < steps_left_ ? steps : steps_left_; }
  void spend_bytes(size_t bytes) { spend(static_cast<int64_t>(bytes / 64)); }
  void spend_values(size_t count) { spend(static_cast<int64_t>(count / 8)); }

  // False, and nothing taken, where so much is not left.
  bool take(size_t bytes) {
    if (bytes > bytes_left_) {
      out_of_memory_ = true;
      return false;
    }
    bytes_left_ -= bytes;
    return true;
  }
  void give_back(size_t bytes) { bytes_left_ += bytes; }

  // Says of a new value how deep its contents go; false where that is too deep.
  bool allows_depth(int depth) {
    if (depth > kMaxValueDepth) too_deep_ = true;
    return depth <= kMaxValueDepth;
  }

  bool exhausted() const { return steps_left_ == 0 || out_of_memory_ || too_deep_ || stop_.stop_requested(); }
  absl::Status status() const;  // CANCELLED, or RESOURCE_EXHAUSTED saying of what; OK where there is some left

 private:
  const std::stop_token stop_;
  int64_t steps_left_;
  size_t bytes_left_;
  bool out_of_memory_ = false;
  bool too_deep_ = false;
};

// Bytes of a budget that something holds, given back with it. Without a budget: of nobody's.
class Charge {
 public:
  Charge() = default;
  explicit Charge(Budget* budget) : budget_(budget) {}
  Charge(Charge&& other) noexcept : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_ != nullptr) budget_->give_back(bytes_);
  }

  bool take(size_t bytes) {
    if (budget_ == nullptr) return true;
    if (!budget_->take(bytes)) return false;
    bytes_ += bytes;
    return true;
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pkv::jinja
