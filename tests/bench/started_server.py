"""The server program as benchmarks, and tests of clients that are not ours, start it: on free ports of this machine, until close()."""
import re
import subprocess
import threading


class StartedServer:
    def __init__(self, program, model, *settings):
        command = [program]
        for setting in (f"model.path={model}", "server.listen=127.0.0.1:0", *settings):
            command += ["--set", setting]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if found := re.search(r" ready address=(\S+).* http=(\S+)", line):
                self.address, self.http = found.groups()
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise SystemExit("the server ended before it was ready")

    def close(self):
        self.process.terminate()
        self.process.wait()
