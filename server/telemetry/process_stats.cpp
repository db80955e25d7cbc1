#include "server/telemetry/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

namespace pkv {
namespace {

// Places in /proc/self/stat (proc(5), from 1), of what follows the command's name, which may hold blanks itself.
constexpr size_t kFirstField = 3, kUserTicks = 14, kSystemTicks = 15, kThreads = 20, kStartTicks = 22, kVirtual = 23,
                 kResident = 24;

std::vector<std::string> stat_fields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream rest(line.substr(std::min(line.size(), line.rfind(')') + 1)));
  return {std::istream_iterator<std::string>(rest), {}};
}

// When the machine started, in seconds since 1970.
double boot_time() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

uint64_t count_open_fds() {
  std::error_code error;
  const auto entries = std::filesystem::directory_iterator("/proc/self/fd", error);
  if (error) return 0;
  const auto count = std::distance(begin(entries), end(entries));
  return static_cast<uint64_t>(std::max<std::ptrdiff_t>(0, count - 1));  // without the one that is reading
}

double fd_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<double>::infinity();
  }
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

std::optional<ProcessStats> read_process_stats() {
  const std::vector<std::string> fields = stat_fields();
  if (fields.size() <= kResident - kFirstField) return std::nullopt;
  const auto field = [&](size_t place) { return std::strtoull(fields[place - kFirstField].c_str(), nullptr, 10); };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return ProcessStats{.cpu_seconds = static_cast<double>(field(kUserTicks) + field(kSystemTicks)) / ticks,
                      .start_time_seconds = boot_time() + static_cast<double>(field(kStartTicks)) / ticks,
                      .resident_bytes = field(kResident) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)),
                      .virtual_bytes = field(kVirtual),
                      .threads = field(kThreads),
                      .open_fds = count_open_fds(),
                      .max_fds = fd_limit()};
}

}  // namespace pkv
