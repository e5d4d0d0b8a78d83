# CPU only: docker build -t stabilitykit . && docker run --rm -v "$PWD:/work" stabilitykit evaluate -o run
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY stabilitykit stabilitykit
COPY plugins plugins
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12-slim
COPY constraints.txt /tmp/constraints.txt
# The CPU build of torch: the default one brings several GB of CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c /tmp/constraints.txt torch torchvision
COPY --from=build /dist /tmp/dist
RUN pip install --no-cache-dir -c /tmp/constraints.txt /tmp/dist/*.whl \
 && useradd --create-home user
USER user
# Compiled searches and trajectories: both are kept in the user's home.
ENV NUMBA_CACHE_DIR=/home/user/.cache/numba \
    STABILITYKIT_CACHE=/home/user/.cache/stabilitykit
WORKDIR /work
ENTRYPOINT ["stabilitykit"]
CMD ["--help"]
