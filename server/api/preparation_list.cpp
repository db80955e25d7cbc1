#include "server/api/preparation_list.h"

#include <utility>

#include "absl/time/clock.h"

namespace pkv {

PreparationList::Entry::Entry(PreparationList& list, Row row) : list_(list) {
  row.phase = "queued";
  row.since = absl::Now();
  std::list<Row> one;
  one.push_back(std::move(row));
  row_ = one.begin();
  const std::lock_guard lock(list_.mutex_);
  list_.rows_.splice(list_.rows_.end(), one);
}

PreparationList::Entry::~Entry() {
  std::list<Row> gone;  // what it holds goes without the lock
  const std::lock_guard lock(list_.mutex_);
  gone.splice(gone.end(), list_.rows_, row_);
}

void PreparationList::Entry::begin() {
  const std::lock_guard lock(list_.mutex_);
  row_->phase = "preparing";
  row_->since = absl::Now();
}

void PreparationList::Entry::set_request_id(const std::string& id) {
  const std::lock_guard lock(list_.mutex_);
  row_->request_id = id;
}

std::vector<PreparationList::Row> PreparationList::rows() const {
  const std::lock_guard lock(mutex_);
  return {rows_.begin(), rows_.end()};
}

}  // namespace pkv
