// pyramidkv-server.
#include "server/program.h"

int main(int argc, char** argv) { return pkv::run_program(argc, argv); }
