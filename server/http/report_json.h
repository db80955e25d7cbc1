// A cache report as JSON.
#pragma once

#include <string>

#include "server/api/conversion.h"

namespace pkv {

// As message_json() of what set_report() makes. Positions, of which there may be millions, are written by hand:
// protobuf's printer takes long for each.
std::string report_json(const CacheReport& report, const PolicySpec& spec, ReportDetail detail);

}  // namespace pkv
