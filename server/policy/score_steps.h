// How a layer is scored: steps in order, each with its work, so that others can have the backend between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace pkv {

struct LayerView;

class ScoreSteps {
 public:
  // Called with the layer as it lies then: of what the steps were listed for, only `kv` may have changed.
  using Step = std::function<void(const LayerView&)>;

  // Work is counted in multiply-adds. A step has `most_work` at most, where its operations can be divided.
  explicit ScoreSteps(int64_t most_work) : most_work_(most_work) {}

  int64_t most_work() const { return most_work_; }
  void add(int64_t work, Step step) { steps_.push_back({work, std::move(step)}); }

  bool done() const { return next_ == steps_.size(); }
  int64_t next_work() const { return steps_[next_].work; }
  void run_next(const LayerView& layer) { steps_[next_++].run(layer); }

 private:
  struct Entry {
    int64_t work = 0;
    Step run;
  };
  int64_t most_work_ = 0;
  std::vector<Entry> steps_;
  size_t next_ = 0;
};

}  // namespace pkv
