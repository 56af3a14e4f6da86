"""Several processes that train one model, on one machine or many: what they tell each other, over MPI."""
