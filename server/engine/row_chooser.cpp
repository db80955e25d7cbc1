// First by the best of all rows; then by the whole of those rows that need it, as many at once as there are threads.
#include "server/engine/row_chooser.h"

#include <algorithm>
#include <optional>

#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr int32_t kMostAtOnce = 16;  // whole rows: each has a copy and its ranking on the host
// Numbers that a token to choose from is worth, by its mass and its rank.
constexpr int64_t kTokenWork = 64;

bool decide_by_best(RowChooser::Row& row) {
  const std::optional<TokenId> token = choose_of_best(row.ranked, *row.sampling, *row.rng);
  if (!token) return false;
  const std::span<const RankedToken> best = row.ranked.best;
  const auto found = std::ranges::find(best, *token, &RankedToken::token);
  row.chosen = {.id = *token, .logit = found->before};
  return true;
}

}  // namespace

RowChooser::RowChooser(Backend& backend, int32_t vocabulary)
    : backend_(&backend),
      vocabulary_(vocabulary),
      places_(static_cast<size_t>(std::clamp(backend.host_threads(), 1, kMostAtOnce))) {
  for (Place& place : places_) place.logits.resize(static_cast<size_t>(vocabulary));
}

uint64_t RowChooser::bytes() const {
  return places_.size() * (sizeof(float) * static_cast<uint64_t>(vocabulary_) + RowScratch::bytes(vocabulary_));
}

absl::Status RowChooser::choose(std::span<Row> rows) {
  size_t most = 0;
  for (const Row& row : rows) most = std::max(most, row.ranked.best.size());
  undecided_.assign(rows.size(), nullptr);
  backend_->run_on_host(static_cast<int64_t>(rows.size()), kTokenWork * static_cast<int64_t>(most),
                        [&](int64_t item, int32_t) {
                          const auto i = static_cast<size_t>(item);
                          if (!decide_by_best(rows[i])) undecided_[i] = &rows[i];
                        });
  std::erase(undecided_, nullptr);
  for (size_t first = 0; first < undecided_.size(); first += places_.size()) {
    const auto some = std::span(undecided_).subspan(first, std::min(places_.size(), undecided_.size() - first));
    reads_.clear();
    for (size_t i = 0; i < some.size(); ++i) reads_.push_back({places_[i].logits.data(), some[i]->logits});
    backend_->fetch(reads_);
    PKV_RETURN_IF_ERROR(backend_->status());
    backend_->run_on_host(static_cast<int64_t>(some.size()), kTokenWork * vocabulary_, [&](int64_t item, int32_t) {
      const auto i = static_cast<size_t>(item);
      choose_of_whole(*some[i], places_[i]);
    });
  }
  return absl::OkStatus();
}

void RowChooser::choose_of_whole(Row& row, Place& place) const {
  row.edits->apply(place.logits);
  row.chosen.id = choose_of_row(place.logits, *row.sampling, *row.rng, place.scratch);
  row.edits->restore(place.logits);
  row.chosen.logit = place.logits[static_cast<size_t>(row.chosen.id)];
}

}  // namespace pkv
