// The model runner's part in evictions: scores that are made anew before a sequence goes on.
#include <algorithm>

#include "server/engine/model_runner.h"

namespace pkv {
namespace {

// Of the lanes that the sequence's next step writes to, those that have to wait; nullptr where none has.
SequenceLanes* waiting_lanes(Sequence& sequence) {
  if (!sequence.answered() && sequence.lanes()->needs_refresh()) return sequence.lanes();
  if (sequence.comparison() == nullptr) return nullptr;
  for (Comparison::Rival& rival : sequence.comparison()->rivals) {
    if (!sequence.answered() && rival.teacher_forced->needs_refresh()) return rival.teacher_forced.get();
    if (!rival.ended && rival.free_running->needs_refresh()) return rival.free_running.get();
  }
  return nullptr;
}

}  // namespace

bool ModelRunner::needs_refresh(Sequence& sequence) { return waiting_lanes(sequence) != nullptr; }

int64_t ModelRunner::refresh_unit(Sequence& sequence, int64_t most) {
  int64_t work = 0;
  for (SequenceLanes* lanes = waiting_lanes(sequence); lanes != nullptr && work < most;
       lanes = waiting_lanes(sequence)) {
    work += lanes->refresh(most - work);
  }
  return work;
}

}  // namespace pkv
