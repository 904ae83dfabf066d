# docker build -t aim-video . && docker run --gpus all --shm-size=8g -v DATA:/data -v RUNS:/app/runs aim-video +experiment=k400 data.root=/data
FROM python:3.12-slim

# FFmpeg is torchcodec's; git lets results.json name the commit; Triton builds with gcc what train.compile starts its
# kernels by.
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg gcc git libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.lock pyproject.toml ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-build-isolation --no-deps -e .
ENTRYPOINT ["python", "-m", "aim.train"]
CMD ["+experiment=demo"]
