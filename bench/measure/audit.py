NAME = "audit"
def run(bench):
    pass
