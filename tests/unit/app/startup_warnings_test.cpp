// What is warned of at the start, and how the memory limit is found.
#include "server/startup_warnings.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace pkv {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A root folder with only the files a test writes.
class MemoryLimit : public ::testing::Test {
 protected:
  MemoryLimit() {
    std::string name = std::filesystem::temp_directory_path() / "pkv_root_XXXXXX";
    root_ = std::string(mkdtemp(name.data())) + "/";
  }
  ~MemoryLimit() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root_;
};

TEST_F(MemoryLimit, IsTheMachines) {
  EXPECT_EQ(memory_limit(root_), std::nullopt);
  write("proc/meminfo", "Other: 1 kB\nMemTotal:       24576 kB\nMemFree: 5 kB\n");
  EXPECT_EQ(memory_limit(root_), uint64_t{24576} << 10);
  write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(memory_limit(root_), uint64_t{24576} << 10);
}

TEST_F(MemoryLimit, OrTheLeastOfTheControlGroups) {
  write("proc/meminfo", "MemTotal:       24576 kB\n");
  write("proc/self/cgroup", "0::/pods/one\n");
  write("sys/fs/cgroup/pods/one/memory.max", "max\n");
  write("sys/fs/cgroup/pods/memory.max", "4096\n");
  EXPECT_EQ(memory_limit(root_), 4096u);
  write("sys/fs/cgroup/pods/one/memory.max", "1024\n");
  EXPECT_EQ(memory_limit(root_), 1024u);
  write("sys/fs/cgroup/memory.max", "512\n");
  EXPECT_EQ(memory_limit(root_), 512u);
}

TEST_F(MemoryLimit, OfOldControlGroups) {
  write("proc/meminfo", "MemTotal:       24576 kB\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n");
  EXPECT_EQ(memory_limit(root_), 2048u);
}

TEST(StartupWarnings, ThisMachineHasALimit) { EXPECT_GT(memory_limit().value_or(0), 0u); }

TEST(StartupWarnings, DefaultsAreQuiet) { EXPECT_THAT(startup_warnings({}, uint64_t{1} << 40), IsEmpty()); }

TEST(StartupWarnings, AddressesOthersCanReach) {
  Config config;
  config.server.listen = "0.0.0.0:50051";
  EXPECT_THAT(startup_warnings(config, std::nullopt), ElementsAre(HasSubstr("server.listen: 0.0.0.0:50051")));
  config.server.listen = "[::]:50051";
  config.metrics.listen = "10.0.0.1:9464";
  EXPECT_THAT(startup_warnings(config, std::nullopt),
              ElementsAre(HasSubstr("server.listen: "), HasSubstr("metrics.listen: 10.0.0.1:9464")));
  config.server.listen = "[::1]:50051";
  config.metrics.listen = "";
  EXPECT_THAT(startup_warnings(config, std::nullopt), IsEmpty());
}

TEST(StartupWarnings, KeysThatCanBeReadOnTheWay) {
  Config config;
  config.server.listen = "0.0.0.0:50051";
  config.server.api_keys = "keys";
  EXPECT_THAT(startup_warnings(config, std::nullopt), ElementsAre(HasSubstr("without encryption: keys, prompts")));
  config.server.tls.cert = "cert.pem";
  EXPECT_THAT(startup_warnings(config, std::nullopt), IsEmpty());
  config.http.listen = "0.0.0.0:8000";
  EXPECT_THAT(startup_warnings(config, std::nullopt), IsEmpty());
  config.http.tls = false;
  EXPECT_THAT(startup_warnings(config, std::nullopt), ElementsAre(HasSubstr("http.listen: 0.0.0.0:8000")));
}

TEST(StartupWarnings, APoolBeyondTheMemory) {
  Config config;
  config.cache.pool_bytes = 3000;
  EXPECT_THAT(startup_warnings(config, 2000),
              ElementsAre(AllOf(HasSubstr("cache.pool_bytes: 3000 bytes"), HasSubstr("2000 bytes"))));
  EXPECT_THAT(startup_warnings(config, 3000), IsEmpty());
}

}  // namespace
}  // namespace pkv
