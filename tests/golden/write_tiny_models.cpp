// Writes the tiny models of the unit tests into a folder, for make_tiny_cases.py: pkv-tiny-models FOLDER
#include <cstdio>
#include <fstream>

#include "tests/unit/model/tiny_cases.h"

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: pkv-tiny-models FOLDER\n"), 2;
  for (const pkv::test::TinyCase& tiny : pkv::test::tiny_cases()) {
    const std::string path = std::string(argv[1]) + "/" + tiny.name + ".gguf";
    if (!(std::ofstream(path, std::ios::binary) << tiny.model.bytes()).flush()) {
      return std::fprintf(stderr, "cannot write %s\n", path.c_str()), 1;
    }
  }
  return 0;
}
