// One row a policy; figures are those of docs/results/policies.md and of the pages docs/results/quality-*.md.
#include "client/policy_advice.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "absl/strings/string_view.h"

namespace pkv::client {
namespace {

struct Advice {
  absl::string_view name, text;
};

constexpr std::array<Advice, 12> kAdvice{{
    {"full", "Where the whole prompt's cache fits: nothing is lost, and every other policy is measured against it."},
    {"streaming_llm",
     "For answers without end: with scope total and position_mode=cache_relative it is the only one that can generate "
     "beyond "
     "the model's length. It looks at nothing, and what lies in the middle of a prompt is dropped. Keep its first "
     "tokens: "
     "without them the loss was larger at 512 entries than with them at 64."},
    {"h2o",
     "Where the answer needs the prompt as a whole: at equal bytes it lost 0.56 to 0.93 of what snapkv did, on both "
     "models that were measured; funnel in k8v4 less. Not for single details: of twenty needles it found two where "
     "snapkv found twenty. Reading a prompt of 8,000 tokens takes a third longer."},
    {"snapkv",
     "Where a detail of the prompt is asked for at its end: with 12.5 % kept it found about as many needles as "
     "funnel. It lost less than pyramidkv at equal bytes on both models that were measured, and reading a prompt of "
     "8,000 tokens takes 1.01 of the time that it takes with full. Where the question is in the prompt "
     "window_tokens=32 lost a fifth less than the published 8; where it is not, no less (the default model, at 20 %)."},
    {"pyramidkv",
     "To compare with: it lost more than snapkv at equal bytes in every setting of both models that were measured, "
     "for its direction is wrong there: upper layers need more. Its worst head keeps more of the attention than "
     "snapkv's on the default model and less on the other. On the default model at 20 % a window of 32 on both sides "
     "did not change that. With scope total at 64 entries it lost twice as much as with prompt."},
    {"l2norm",
     "To compare with: it lost more than the policies that observe attention, and from 128 entries on more than "
     "random."},
    {"tova",
     "For small budgets: but for funnel it and h2o lost least at 64 and 128 entries, and reading a prompt of 8,000 "
     "tokens takes 1.01 of the time that it takes with full."},
    {"keydiff", "To compare with: it lost more than the policies that observe attention, at every budget."},
    {"random", "To be beaten: a policy that loses as much as this one is no good."},
    {"ada_snapkv",
     "Close to snapkv: at equal bytes it lost 0.88 to 1.01 of what snapkv did, on both models that were measured. Of "
     "thirty needles the default model found 8 with it and 18 with snapkv; the other model found all with both. "
     "With scope total at 64 entries it lost 1.7 times what snapkv did."},
    {"funnel",
     "First choice: docs/results/funnel.md says by how much it loses less than the others at equal bytes, and where it "
     "was asked for more. In f16, with the question hidden, h2o lost less on one of two models. refit_values=true "
     "loses less still, for a longer prompt phase; it needs a lane table of the model. Without a table scores divide "
     "the budget (allocation=global), which lost no more where it was measured, with 20 % kept on two models."},
    {"ada_pyramidkv",
     "To compare with: pyramidkv's layers, with their entries shared among heads as in ada_snapkv. At equal bytes it "
     "lost 1.03 to 1.71 of what snapkv did, on both models that were measured."},
}};

}  // namespace

std::string policy_advice(const std::string& name) {
  const auto* const row =
      std::find_if(kAdvice.begin(), kAdvice.end(), [&](const Advice& advice) { return advice.name == name; });
  return row == kAdvice.end() ? "" : std::string(row->text);
}

std::string policy_advice() {
  return "Where the server has a lane table of its model: funnel, with refit_values=true where the prompt may take "
         "longer; without a table too (allocation=global). Of the others h2o lost least at equal bytes on both models "
         "that were measured and finds hardly any needles; snapkv finds them. The pyramid's direction is wrong on "
         "both: upper layers need more entries, and pyramidkv loses to snapkv at equal bytes. Where the question ends "
         "the prompt a window of 32 instead of 8 helps both, so compare them at equal windows. "
         "docs/results/policies.md has the tables, and 'pyramidkv compare' tries them on a prompt of yours.";
}

}  // namespace pkv::client
