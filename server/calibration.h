// Makes a model's lane table: how much of one budget every lane gets where the best scores of all lanes together are
// kept.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/request.h"
#include "server/model/model.h"
#include "server/policy/lane_table.h"

namespace pkv {

struct CalibrationOptions {
  // Entries per token and lane that the table has an anchor for; ascending.
  std::vector<double> keeps = {0.03125, 0.0625, 0.125, 0.2, 0.3, 0.5};
  std::function<void(size_t done)> progress = [](size_t) {};  // prompts that were read
};

// Reads the prompts with the full cache, scores every layer as the policy funnel does where it compares lanes, and
// counts: a lane's share is the mean over the prompts of its entries beside what is always kept, divided by those of an
// average lane. The table's `model` stays empty. INVALID_ARGUMENT for a prompt so short that the smallest anchor keeps
// nothing beside that; DATA_LOSS where the model's numbers are none, NaN or infinite.
absl::StatusOr<LaneTable> calibrate(const Model& model, std::span<const std::vector<TokenId>> prompts,
                                    const CalibrationOptions& options);

}  // namespace pkv
