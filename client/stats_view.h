// The state of a server for people who watch it: lines that are redrawn in place, or one line a message.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/stats.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

struct ViewStyle {
  int width = 80;  // no line is longer
  bool color = false;
};

// Rates are counted since `previous`, an earlier message; null: there is none, rates are "-".
std::vector<std::string> stats_view(const v1::Stats* previous, const v1::Stats& now, const ViewStyle& style);
// KEY=VALUE separated by blanks, always the same keys in the same order; sizes in bytes.
std::string stats_line(const v1::Stats* previous, const v1::Stats& now);

// A device's memory by what it is used for.
std::string device_memory_line(const v1::DeviceMemoryStats& device);
// SERVING, LOADING, ...
std::string state_word(v1::ServerState state);
// What a stranger chose (a request's id, say), fit for a terminal: whatever is no printable ASCII becomes \xNN.
std::string printable(const std::string& text);

}  // namespace pkv::client
