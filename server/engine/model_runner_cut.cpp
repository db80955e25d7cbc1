// The model runner's part in cuts: one policy after the other, in steps.
#include <utility>

#include "kernels/status_macros.h"
#include "server/engine/model_runner.h"

namespace pkv {

// A comparison's rivals take their part of the layer while it is whole; then the sequence's own lanes are cut.
absl::StatusOr<int64_t> ModelRunner::cut_unit(Sequence& sequence, int64_t most, int64_t work) {
  Sequence::Prefill& prefill = *sequence.prefill();
  const size_t rivals = sequence.contract().rivals.size();
  const int64_t begin = model_.backend().mark();
  while (prefill.policies_cut <= rivals) {
    const bool own = prefill.policies_cut == rivals;
    Comparison::Rival* rival = own ? nullptr : &sequence.comparison()->rivals[prefill.policies_cut];
    Compressor& compressor = own ? *prefill.compressor : *rival->compressor;
    std::vector<Compressor::Target> targets;
    for (SequenceLanes* lanes :
         own ? std::vector{sequence.lanes()} : std::vector{rival->teacher_forced.get(), rival->free_running.get()}) {
      targets.push_back({lanes->id(), lanes->evictor()});
    }
    // Without scores a cut is one step, so that it can borrow what decode steps score in.
    CompressorScratch& scratch = prefill.scratch ? *prefill.scratch : *compressor_scratch_;
    const Compressor::Cut cut{.cache = *cache_, .from = sequence.lanes()->id(), .targets = targets, .scratch = scratch};
    if (!std::exchange(prefill.cutting, true)) compressor.begin_cut(cut, prefill.layer);
    const int64_t next = compressor.next_step_work();
    if (work > 0 && work + next > most) break;
    PKV_ASSIGN_OR_RETURN(std::optional<LayerOutcome> outcome, compressor.cut_step(cut, prefill.layer));
    work += next;
    if (!outcome) continue;
    own ? sequence.add_outcome(*std::move(outcome)) : rival->outcomes.push_back(*std::move(outcome));
    prefill.cutting = false;
    ++prefill.policies_cut;
  }
  prefill.cuts.emplace_back(begin, model_.backend().mark());
  if (prefill.policies_cut > rivals) {
    ++prefill.layer;
    prefill.row = 0;
    if (prefill.sparse != nullptr) prefill.sparse->end_layer();
    prefill.policies_cut = 0;
  }
  return work;
}

}  // namespace pkv
