#include "server/api/call_registry.h"

#include <utility>

#include "absl/time/clock.h"

namespace pkv {

std::string_view name_of(CallPhase phase) {
  switch (phase) {
    case CallPhase::kQueued:
      return "queued";
    case CallPhase::kPreparing:
      return "preparing";
    case CallPhase::kEngine:
      return "engine";
    case CallPhase::kDelivering:
      return "delivering";
  }
  return "";
}

CallRegistry::Entry::Entry(CallRegistry& registry, Row row) : registry_(registry) {
  row.since = absl::Now();
  std::list<Row> one;
  one.push_back(std::move(row));
  row_ = one.begin();
  const std::lock_guard lock(registry_.mutex_);
  registry_.rows_.splice(registry_.rows_.end(), one);
  ++registry_.counted(row_->phase);
}

CallRegistry::Entry::~Entry() {
  std::list<Row> gone;  // what it holds goes without the lock
  const std::lock_guard lock(registry_.mutex_);
  gone.splice(gone.end(), registry_.rows_, row_);
  --registry_.counted(row_->phase);
}

void CallRegistry::Entry::enter(CallPhase phase) {
  const std::lock_guard lock(registry_.mutex_);
  --registry_.counted(row_->phase);
  ++registry_.counted(phase);
  row_->phase = phase;
  row_->since = absl::Now();
}

void CallRegistry::Entry::set_request_id(const std::string& id) {
  const std::lock_guard lock(registry_.mutex_);
  row_->request_id = id;
}

std::vector<CallRegistry::Row> CallRegistry::rows() const {
  const std::lock_guard lock(mutex_);
  return {rows_.begin(), rows_.end()};
}

}  // namespace pkv
