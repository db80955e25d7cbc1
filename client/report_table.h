// Cache reports for people: one column per reply, and the shape over the layers.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What a report needs of one reply.
struct ReportColumn {
  std::string title;
  v1::CacheReport cache;
  v1::Usage usage;
  v1::Timings timings;
};

std::string human_bytes(double bytes);
// Side by side, one row per figure.
std::string report_table(const std::vector<ReportColumn>& columns);
// Entries kept per layer as bars; empty where the report has no layers.
std::string layer_bars(const v1::CacheReport& report);

}  // namespace pkv::client
