import json
import sys

args = json.load(sys.stdin)
json.dump(args, sys.stdout)
